"""Slots that come free one by one, and who gets them: the promise of a fair claim, counted on real rows."""

from apps.agents.base import TokenCount
from apps.execution import lifecycle
from apps.execution.models import Run, UserBudget
from apps.vocabulary import Identity, UserId


class Turns:
    """One deployment with so many slots. Every claim is held against the formula: a user without a running run waits
    until at most W + 1 slots came free, with W users whose work was queued before.
    """

    def __init__(self, desk, slots: int) -> None:
        self.desk = desk
        self.slots = slots
        self.running: list[tuple[int, str]] = []
        self.came_free = 0
        self.waited: dict[int, list[int]] = {}  # by user, the slots that came free before each claim from idle
        self._waiting: dict[int, tuple[int, int]] = {}

    def arrive(self, *user_ids: int) -> None:
        for user_id in user_ids:
            self.desk.admit(Identity(UserId(user_id), f"user {user_id}"))
            self._note_who_waits()

    def claim(self) -> None:
        """Fill all slots that are free."""
        while len(self.running) < self.slots and (run_id := self.desk.claim()):
            user_id = Run.objects.get(pk=run_id).user_id
            self.running.append((user_id, run_id))
            if user_id in self._waiting:
                since, before = self._waiting.pop(user_id)
                assert self.came_free - since <= before + 1, f"user {user_id} waited too long behind {before}"
                self.waited.setdefault(user_id, []).append(self.came_free - since)

    def end(self, which: int) -> None:
        """One of the running runs ends, and a slot comes free."""
        if not self.running:
            return
        _, run_id = self.running.pop(which % len(self.running))
        run = Run.objects.get(pk=run_id)
        assert self.desk.runs._recovery.end(run_id, lifecycle.succeeded(run.thread, run.run_id, TokenCount()))
        self.came_free += 1
        self._note_who_waits()

    def _note_who_waits(self) -> None:
        at_work = {user_id for user_id, _ in self.running}
        queued = set(UserBudget.objects.filter(queued__gt=0).values_list("pk", flat=True))
        for user_id in queued - at_work:
            self._waiting.setdefault(user_id, (self.came_free, len(queued - {user_id})))
