"""`manage.py` in a process that kills itself at a chosen point, as a crash would: `python -m tests.dying_server serve`.

`TURNOUT_TESTS_DIE=after_commit:40` is SIGKILL in the moment after the 40th commit, which nobody but the database knows
of; `before_hint:40` when its tabs were shown the 40th commit and no other process was told. The product has no hooks
for this: here the two classes are replaced by ones that die.
"""

import os
import signal
import sys

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django.setup()

from django.core.management import execute_from_command_line  # noqa: E402 - apps must be loaded first

import apps.realtime.log  # noqa: E402
import project.composition  # noqa: E402
from apps.realtime.commit import Committer  # noqa: E402
from apps.realtime.hints import Hints  # noqa: E402

VARIABLE = "TURNOUT_TESTS_DIE"
POINTS = ("after_commit", "before_hint")


class Countdown:
    """Kills this process when its point was passed as often as it was told."""

    def __init__(self, text: str) -> None:
        self.point, _, times = text.partition(":")
        self.left = int(times or 0)

    def passed(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


countdown = Countdown(os.environ.get(VARIABLE, ""))


class DyingCommitter(Committer):
    def commit(self, batches):
        result = super().commit(batches)
        countdown.passed("after_commit")
        return result


class DyingHints(Hints):
    async def _send(self, heads):
        if heads:
            countdown.passed("before_hint")
        await super()._send(heads)


if __name__ == "__main__":
    apps.realtime.log.Committer = DyingCommitter
    project.composition.Hints = DyingHints
    execute_from_command_line(["manage.py", *sys.argv[1:]])
