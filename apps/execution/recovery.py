"""Ending a run without its owner: its process died, or could not write the end itself. Synchronous.

The run gets a new fence first, so whatever the old owner still has in its hands is refused from then on. What
the log says is open is closed, and one terminal event follows, in the transaction that settles the run:
nobody can end it twice.
"""

import logging
from collections.abc import Sequence

from ag_ui.core import BaseEvent
from django.db import transaction

from apps.agents.base import TokenCount
from apps.execution import lifecycle
from apps.execution.models import Run, UserBudget
from apps.execution.settlement import Settlement
from apps.realtime.commit import Participant
from apps.realtime.constructs import OpenConstructs
from apps.realtime.log import EventLog, RunClosed
from apps.realtime.values import EndedRun, Ending, LogEntry
from apps.vocabulary import RunId, UserId

logger = logging.getLogger(__name__)


class Recovery:
    """Ends runs from outside. `fold` writes the message of what the run has said so far."""

    def __init__(self, log: EventLog, fold: Participant) -> None:
        self._log = log
        self._fold = fold
        self._settlement = Settlement()

    def end(self, run_id: RunId, ending: Ending, fence: int | None = None) -> bool:
        """End one running run, in a transaction of its own; with `fence`, only while that owner has it.

        False when there was nothing to end: somebody else has ended it, or owns it by now.
        """
        with transaction.atomic():
            run = self._locked(run_id)
            if run is None or fence not in (None, run.fence):
                return False
            self._end(run, ending)
            return True

    def end_orphan(self, run_id: RunId, process_id: str) -> Run | None:
        """End a running run that this process has left, as interrupted, and return it as it was; None when there was
        nothing to end. In the caller's transaction.
        """
        run = self._locked(run_id)
        if run is None or run.process_id != process_id:
            return None
        self._end(run, lifecycle.interrupted(TokenCount()))
        return run

    def _locked(self, run_id: RunId) -> Run | None:
        """The run, if it is running; its user's budget is locked from here on."""
        owner = Run.objects.filter(pk=run_id).values_list("user_id", flat=True).first()
        if owner is None:
            return None
        UserBudget.objects.locked(UserId(owner))
        return Run.objects.running().filter(pk=run_id).first()

    def _end(self, run: Run, ending: Ending) -> None:
        fence = run.fence + 1
        ended = EndedRun(
            run.run_id,
            run.thread,
            run.owner,
            fence,
            ending.status,
            ending.usage,
            ending.error_code,
            error_message=ending.error_message,
        )
        self._settlement.lock([ended])
        self._fold.lock([ended])
        Run.objects.filter(pk=run.pk).update(fence=fence)
        try:
            self._log.claim_run(run.owner, run.run_id, fence)
        except RunClosed:
            # Status and ledger change in one transaction, so this is damage from outside (a restored table, a
            # hand edit).
            logger.error(  # noqa: TRY400 - the run matters
                "the ledger of run %s is closed, its books are not; they are put right",
                run.pk,
                extra={"run_id": run.pk},
            )
            self._settlement.write([ended])
            return
        told = self._settlement.write([ended])
        last = [LogEntry(event, run.thread, run.run_id) for event in self._last_events(run, ending)]
        self._log.append(run.owner, [*last, *(line.entry for line in told)])
        self._log.close_run(run.owner, run.run_id)
        self._fold.write([ended])

    def _last_events(self, run: Run, ending: Ending) -> Sequence[BaseEvent]:
        constructs = OpenConstructs()
        for event in self._log.read_run(run.owner, run.run_id):
            constructs.follow(event)
        last: list[BaseEvent] = []
        if not constructs.started:
            last.append(lifecycle.started(run.thread, run.run_id, run.message, run.parent))
        last.extend(constructs.closing_events(f"The run ended before this was answered ({ending.status})."))
        last.append(ending.event)
        return last
