"""A team's own seams with their old and new paths."""

from contextlib import asynccontextmanager

from apps.rollout.seams import Scope, Seam
from apps.rollout.stages import Stage


def no_open_work():
    return 0


def three_at_work():
    return 3


def old_billing(*arguments):
    return ("old", *arguments)


def new_billing(*arguments):
    return ("new", *arguments)


class Search:
    def old(self, *arguments):
        return ("old", *arguments)

    @staticmethod
    @asynccontextmanager
    async def new(closed):
        yield "new"
        closed.append("new")


BILLING = Seam(
    name="billing",
    legacy="tests.rollout.paths.old_billing",
    factory="tests.rollout.paths.new_billing",
    scope=Scope.RUN,
    open_work="tests.rollout.paths.no_open_work",
)
SEARCH = Seam(
    name="search",
    legacy="tests.rollout.paths.Search.old",
    factory="tests.rollout.paths.Search.new",
    scope=Scope.RUN,
    default_stage=Stage.ON,
    legacy_leaks=True,
    open_work="tests.rollout.paths.three_at_work",
)
RANKING = Seam(
    name="ranking",
    legacy="tests.rollout.paths.old_billing",
    factory="tests.rollout.paths.new_billing",
    scope=Scope.RUN,
    default_stage=Stage.ON,
    replayable=True,
    requires=("search",),
)

SEAMS = (RANKING, BILLING, SEARCH)
TWICE = (BILLING, BILLING)
NO_SEAMS = "neither a tuple nor seams"
BROKEN = (
    Seam(
        name="lost",
        legacy="tests.rollout.paths.gone",
        factory="tests.rollout.paths.new_billing",
        scope=Scope.RUN,
        requires=("elsewhere",),
    ),
)
