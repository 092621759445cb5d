"""What becomes of the runs that a process leaves: they end as interrupted, and some are asked again. Synchronous.

A run is asked again where its agent says that this is safe (`restartable`): nothing that it did a first time harms when
it is done a second time. Each call is a transaction of its own.
"""

import dataclasses
import logging
from collections.abc import Callable, Collection

from django.db import InterfaceError, OperationalError, transaction

from apps.execution.admission import Admission, RunRequest
from apps.execution.models import Run, UserBudget
from apps.execution.recovery import Recovery
from apps.execution.service import request_of
from apps.execution.states import RunStatus
from apps.execution.tasks import wake_executor
from apps.vocabulary import Identity, MessageId, Refusal, RunId, ThreadId, UserId, new_id

logger = logging.getLogger(__name__)


class Succession:
    """See the module. `admit` queues a run in the caller's transaction; `put_back` locks a thread and makes this
    question its last again, or says False when the question is gone; `restarts` is how often a question is asked again
    in a row.
    """

    def __init__(
        self,
        recovery: Recovery,
        *,
        admit: Callable[[Identity, RunRequest], Admission],
        put_back: Callable[[UserId, ThreadId, MessageId], bool],
        restartable: Collection[str],
        restarts: int,
    ) -> None:
        self._recovery = recovery
        self._admit = admit
        self._put_back = put_back
        self._restartable = frozenset(restartable)
        self._restarts = restarts

    def runs_of(self, process_id: str) -> list[RunId]:
        """The running runs of a process that is gone, those first that began first."""
        runs = Run.objects.of_process(process_id).order_by("started_at", "pk")
        return [RunId(run_id) for run_id in runs.values_list("pk", flat=True)]

    def end_orphan(self, process_id: str, run_id: RunId) -> bool:
        """End a run that this process has left behind, as interrupted, and ask again where that may be done; False
        when it had ended. Any error of the database leaves it as it was.
        """
        try:
            with transaction.atomic():
                run = self._recovery.end_orphan(run_id, process_id)
                if run is None:
                    return False
                self._ask_again(run)
                transaction.on_commit(wake_executor.enqueue, robust=True)  # its slot is free
                return True
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            # One damaged run must not keep others from their end; the audit of clean-up goes on naming it.
            logger.exception("run %s cannot be ended", run_id, extra={"run_id": run_id})
            return False

    def hand_over(self, process_id: str, run_id: RunId) -> bool:
        """Ask again, for another process, what this one has ended as interrupted because it ends itself; False
        where that may not be done.
        """
        interrupted = Run.objects.filter(pk=run_id, process_id=process_id, status=RunStatus.INTERRUPTED)
        with transaction.atomic():
            run = interrupted.first()
            if run is None:
                return False
            UserBudget.objects.locked(run.owner)
            return self._ask_again(run)

    def _ask_again(self, run: Run) -> bool:
        """Queue a new run for the same question, unless the user has moved on, or it was tried often enough: it may be
        the question that kills processes.
        """
        if run.agent not in self._restartable or run.restarts >= self._restarts or run.cancel_requested:
            return False
        if Run.objects.owned(run.owner).open().filter(thread_id=run.thread_id).exists():
            return False
        again = dataclasses.replace(
            request_of(run),
            run_id=RunId(new_id()),
            parent_run_id=None if run.parent_run_id is None else RunId(run.parent_run_id),
            retry_of=run.run_id,
            restarts=run.restarts + 1,
        )
        try:
            with transaction.atomic():  # a savepoint: whatever becomes of the new run, the old one ends
                if not self._put_back(run.owner, run.thread, again.message_id):
                    return False
                self._admit(Identity(run.owner, run.user_name), again)
        except (OperationalError, InterfaceError):
            raise
        except Refusal as refusal:
            logger.warning("run %s is not asked again: %s", run.pk, refusal, extra={"run_id": run.pk})
            return False
        except Exception:
            logger.exception("run %s cannot be asked again", run.pk, extra={"run_id": run.pk})
            return False
        logger.info("run %s is asked again, as run %s", run.pk, again.run_id, extra={"run_id": run.pk})
        return True
