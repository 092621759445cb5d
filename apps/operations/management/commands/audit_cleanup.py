"""`manage.py audit_cleanup`: says whether everything is closed that should be."""

from typing import override

from django.conf import settings

from apps.chat.attachments import limits_of
from apps.chat.folding import MessageFold
from apps.execution.recovery import Recovery
from apps.operations.auditing import Audit, AuditCommand
from apps.operations.cleanup import Cleanup, CleanupLimits
from apps.realtime.log import EventLog, LogLimits
from apps.realtime.retention import RetentionLimits


class Command(AuditCommand):
    help = "Judge whether everything is closed that should be. --fix closes what can be closed, and says what is left."

    @override
    def audit(self) -> Audit:
        bounds = settings.CONFIGURATION
        limits = CleanupLimits(
            silent_s=bounds.report_stale_s,
            run_deadline_s=bounds.run_timeout_s
            + bounds.cancel_timeout_s
            + bounds.cleanup_timeout_s
            + bounds.report_stale_s,
            receipt_hours=bounds.receipt_hours,
            attachments=limits_of(bounds),
            job_stalled_s=bounds.job_stalled_s + 2 * bounds.job_sweep_s,  # before, the sweep of a process deletes it
            retention=RetentionLimits(
                rows=bounds.log_rows_per_user,
                size=bounds.log_bytes_per_user,
                age_s=bounds.log_age_hours * 3_600.0,
                step_rows=bounds.retention_step_rows,
            ),
        )
        # No writer and no audience: tabs see what is appended here when they next ask for heads.
        log = EventLog(LogLimits())
        return Cleanup(limits, log, Recovery(log, MessageFold(log))).audit()
