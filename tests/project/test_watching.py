"""The guards of this project's seams, in the transactions in which runs are claimed and ended."""

from decimal import Decimal

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone

from apps.agents.builtin_tools import builtin_tools
from apps.agents.registry import build_registry
from apps.agents.tools import Toolbox
from apps.execution import lifecycle
from apps.execution.factory import ExecutionEngineFactory
from apps.execution.lifecycle import RunErrorCode
from apps.execution.models import Run
from apps.execution.service import RunService
from apps.operations.deletion import what_remains
from apps.realtime.database import DatabaseThreads
from apps.realtime.log import EventLog, LogLimits
from apps.realtime.models import Segment
from apps.rollout.audit import Move
from apps.rollout.evidence import GuardState, ObservedEnd
from apps.rollout.moves import RIGHTS, acknowledge, move
from apps.rollout.stages import Mover, MoverKind, Placement, Stage, StaleStage
from apps.rollout.testing import override_stage
from apps.vocabulary import Identity, Refusal, UserId, new_id
from project.limits import plans, run_limits
from project.seams import BRIDGE_SEAM, ENGINE_SEAM
from project.switch import Switch
from project.watching import count_starts
from tests.execution.running_room import Notes, a_request, in_transaction

pytestmark = pytest.mark.django_db

ANNA = Mover(MoverKind.PERSON, "anna", UserId(1), RIGHTS)
COUNTED = lifecycle.TokenCount()


class NoBridges:
    """Of the bridges, the switch only takes the name of one method while runs are claimed and ended."""

    def open_run_bridge(self, lease):
        raise AssertionError(f"a bridge was opened for {lease}")


class Process:
    """What of one process claims and ends runs; all of it that is kept stands in the database."""

    def __init__(self):
        bounds = settings.CONFIGURATION
        engines, agents = ExecutionEngineFactory(run_limits(bounds)), build_registry(faulty_allowed=True)
        self.switch = Switch(bounds, DatabaseThreads(1), engines, NoBridges(), agents, Toolbox(builtin_tools()))
        self.runs = RunService(
            log=EventLog(LogLimits()),
            limits=run_limits(bounds),
            choose_paths=self.switch.choose_paths,
            known_agents={"metronome": 4_096},
            plans=plans(bounds, ""),
            fold=self.switch.observed(Notes()),
            process_id=new_id(),
            why_closed=self.switch.why_closed,
        )

    def admit(self, user_id):
        in_transaction(self.runs.admit, Identity(UserId(user_id), f"user {user_id}"), a_request())

    def run(self, user_id, *, broken="nowhere"):
        """One run from admission to end; fails where the engine's path is `broken`. Returns that path."""
        self.admit(user_id)
        claimed = self.runs.claim()
        path = claimed.paths[ENGINE_SEAM.name].path
        ending = lifecycle.succeeded(claimed.lease.thread_id, claimed.lease.run_id, COUNTED)
        if path == broken:
            ending = lifecycle.failed(RunErrorCode.AGENT_ERROR, "no", COUNTED)
        assert self.runs.end(claimed.lease, ending)
        return path


@pytest.fixture
def processes():
    return [Process(), Process()]


def stage_of(seam=ENGINE_SEAM):
    last = Move.objects.filter(seam=seam.name).first()
    return last.went_to.stage if last else seam.default_stage


def move_to(placement, seam=ENGINE_SEAM):
    last = Move.objects.filter(seam=seam.name).first()
    return move(seam.name, last.version if last else 0, placement, ANNA, "next step")


def test_a_path_that_always_fails_is_left_by_every_process_after_a_few_runs(processes):
    move_to(Placement.of(Stage.RAMP, Decimal(10)))
    failed = 0
    for number in range(150):
        failed += processes[number % 2].run(1 + number, broken="factory") == "factory"
        if stage_of() is not Stage.RAMP:
            break
    print(f"runs of the factory until it was left: {failed}")
    assert 3 <= failed <= 8
    assert all(process.run(9_000_000, broken="factory") == "legacy" for process in processes)
    last = Move.objects.filter(seam=ENGINE_SEAM.name).first()
    assert (last.by_name, last.why.split(":")[0]) == ("guard", "failures")


def test_where_both_paths_fail_nobody_is_moved(processes):
    move_to(Placement.of(Stage.RAMP, Decimal(30)))
    for number in range(60):
        processes[0].run(number + 1)
    for number in range(60, 90):
        process = processes[number % 2]
        process.admit(number + 1)
        claimed = process.runs.claim()
        process.runs.end(claimed.lease, lifecycle.failed(RunErrorCode.UNAVAILABLE, "provider away", COUNTED))
    assert stage_of() is Stage.RAMP
    assert GuardState.objects.get(pk=ENGINE_SEAM.name).bad_outcomes == 30


def test_whoever_moves_the_seam_after_the_guard_is_told_that_it_was_faster(processes):
    version = move_to(Placement.of(Stage.RAMP, Decimal(50))).version
    for number in range(100):
        processes[0].run(number + 1, broken="factory")
    assert stage_of() is not Stage.RAMP
    with pytest.raises(StaleStage, match="moved by guard"):
        move(ENGINE_SEAM.name, version, Placement(Stage.ON), ANNA, "looks good")


def test_what_ended_is_stored_for_every_seam_with_the_agent_and_the_own_time(processes):
    processes[0].run(1)
    rows = ObservedEnd.objects.order_by("seam").values_list("seam", "path", "version", "label", "outcome")
    assert list(rows) == [(seam.name, "factory", 0, "metronome", "clean") for seam in (ENGINE_SEAM, BRIDGE_SEAM)]
    assert all(end.own_ms >= 0 for end in ObservedEnd.objects.all())


def leak_of(claimed):
    """A row as the group commit writes it where a bridge names a stranger."""
    run = claimed.lease.run_id
    Segment.objects.create(
        user_id=99,
        first_seq=1,
        last_seq=1,
        payload=f'[{{"run_id":"{run}"}}]',
        size=9,
        tag="0" * 16,
        created_at=timezone.now(),
        leaked_from=claimed.lease.user_id,
    )


def end_with_a_leak(process):
    process.admit(1)
    claimed = process.runs.claim()
    leak_of(claimed)
    process.runs.end(claimed.lease, lifecycle.succeeded(claimed.lease.thread_id, claimed.lease.run_id, COUNTED))


def test_a_leak_of_the_old_bridge_is_counted_and_moves_nothing(processes):
    with override_stage(BRIDGE_SEAM.name, Stage.OFF):
        end_with_a_leak(processes[0])
    state = GuardState.objects.get(pk=BRIDGE_SEAM.name)
    assert (state.legacy_violations, state.factory_violations, state.refusing) == (1, 0, "")
    assert not Move.objects.exists()


def test_a_leak_of_the_new_bridge_stops_all_new_work_until_a_person_decides(processes):
    first, second = processes
    second.admit(5)
    end_with_a_leak(first)
    assert stage_of(BRIDGE_SEAM) is Stage.ON  # the old path leaks: nobody is sent back to it
    with pytest.raises(Refusal, match="unavailable: new runs are refused"):
        second.admit(6)
    assert second.runs.claim() is None
    version = Move.objects.get(seam=BRIDGE_SEAM.name).version
    acknowledge(BRIDGE_SEAM.name, version, ANNA, "found and mended")
    assert second.runs.claim() is not None
    second.admit(6)


def test_observations_go_when_their_user_goes(processes):
    user = User.objects.create_user("anna")
    processes[0].run(user.pk)
    assert "rollout.ObservedEnd" in what_remains(UserId(user.pk))


def test_the_share_of_the_factory_is_that_of_the_newest_claimed_runs_at_this_version(processes):
    processes[0].run(1)
    version = move_to(Placement.of(Stage.RAMP, Decimal(50))).version
    paths = [processes[0].run(user) for user in range(2, 22)]
    processes[0].admit(30)
    assert count_starts(ENGINE_SEAM.name, version, 100) == (paths.count("legacy"), paths.count("factory"))
    assert sum(count_starts(ENGINE_SEAM.name, version, 5)) == 5
    assert Run.objects.count() == 22
