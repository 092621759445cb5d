import threading
from decimal import Decimal

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import IntegrityError, connections, transaction

from apps.rollout.audit import Act, AppendOnly, Move
from apps.rollout.models import Flag
from apps.rollout.moves import MOVE_STAGE, RIGHTS, MoveNotAllowed, acknowledge, move, operator, person, reshuffle
from apps.rollout.seams import UnknownSeam
from apps.rollout.stages import (
    IllegalMove,
    Mover,
    MoveRefused,
    MoverKind,
    Placement,
    ReasonMissing,
    SeamLatched,
    Stage,
    StaleStage,
)

RAMP = Placement.of(Stage.RAMP, Decimal(25))
ON = Placement(Stage.ON)
OFF = Placement(Stage.OFF)
RETIRED = Placement(Stage.RETIRED)
GUARD = Mover(MoverKind.AUTOMATION, "guardrail")


@pytest.mark.django_db
def test_a_move_writes_the_stage_and_who_did_it_when_from_where_to_where_and_why(anna):
    move("billing", 0, RAMP, anna, " first users ")
    move("billing", 1, ON, anna, "no mismatch in a week")
    flag = Flag.objects.get(name="billing")
    assert (flag.placement, flag.version, flag.everyone, flag.percent) == (ON, 2, True, None)
    trail = [
        (row.came_from, row.went_to, row.version, row.by_name, row.by_user_id, row.why) for row in Move.objects.all()
    ]
    assert trail == [
        (RAMP, ON, 2, "anna", 1, "no mismatch in a week"),
        (OFF, RAMP, 1, "anna", 1, "first users"),
    ]


@pytest.mark.django_db
def test_the_first_move_of_a_seam_starts_from_its_declared_default(anna):
    assert move("search", 0, OFF, anna, "the factory is slow").came_from == ON


@pytest.mark.django_db
def test_a_flag_that_a_team_had_before_it_declared_the_seam_is_taken_over(anna, settings):
    settings.TURNOUT_SEAMS = None
    Flag.objects.create(name="billing", everyone=True, note="ours")
    settings.TURNOUT_SEAMS = "tests.rollout.paths.SEAMS"
    assert Flag.objects.get(name="billing").placement == OFF
    move("billing", 0, RAMP, anna, "start")
    flag = Flag.objects.get(name="billing")
    assert (flag.placement, flag.note, bool(flag.salt)) == (RAMP, "ours", True)


@pytest.mark.django_db
def test_a_new_seam_never_serves_superusers_by_waffles_own_rule(anna):
    move("billing", 0, RAMP, anna, "start")
    assert Flag.objects.get(name="billing").superusers is False


@pytest.mark.django_db
def test_the_salt_stays_when_a_seam_goes_down_and_up_again(anna):
    move("billing", 0, RAMP, anna, "up")
    salt = Flag.objects.get(name="billing").salt
    move("billing", 1, OFF, anna, "down")
    move("billing", 2, RAMP, anna, "up again")
    assert Flag.objects.get(name="billing").salt == salt != ""


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("seam", "version", "to", "why", "refusal"),
    [
        ("billing", 0, RAMP, "  ", ReasonMissing),
        ("billing", 0, OFF, "again", IllegalMove),
        ("billing", 0, Placement(Stage.SHADOW), "compare", IllegalMove),
        ("search", 0, Placement(Stage.RETIRED), "done", IllegalMove),
        ("billing", 7, RAMP, "seen in a dream", StaleStage),
        ("nowhere", 0, RAMP, "start", UnknownSeam),
    ],
)
def test_a_refused_move_changes_nothing(anna, seam, version, to, why, refusal):
    with pytest.raises(refusal):
        move(seam, version, to, anna, why)
    assert not Flag.objects.exists()
    assert not Move.objects.exists()


@pytest.mark.django_db
def test_a_seam_that_cannot_be_replayed_is_refused_shadow_with_the_reason(anna):
    with pytest.raises(IllegalMove, match="billing cannot go to shadow: it is not declared `replayable`"):
        move("billing", 0, Placement(Stage.SHADOW), anna, "compare")
    move("ranking", 0, Placement(Stage.SHADOW), anna, "compare")
    assert (Flag.objects.get().stage, Flag.objects.get().everyone) == ("shadow", False)


@pytest.mark.django_db
def test_a_seam_is_retired_when_nothing_pinned_on_legacy_is_under_way_and_goes_back_to_on_alone(anna):
    with pytest.raises(IllegalMove, match="3 pieces of work that are pinned on legacy are under way"):
        move("search", 0, RETIRED, anna, "done")
    with pytest.raises(IllegalMove, match="names no `open_work`"):
        move("ranking", 0, RETIRED, anna, "done")
    move("billing", 0, ON, anna, "up")
    move("billing", 1, RETIRED, anna, "done")
    with pytest.raises(IllegalMove, match="from retired go to: on"):
        move("billing", 2, OFF, anna, "down")
    assert move("billing", 2, ON, anna, "not yet").went_to == ON


@pytest.mark.django_db
def test_a_move_down_wins_over_moves_up_that_overtook_it(anna, ben):
    move("billing", 0, RAMP, anna, "start")
    move("billing", 1, Placement.of(Stage.RAMP, Decimal(50)), anna, "more")
    move("billing", 2, ON, anna, "all")
    row = move("billing", 1, OFF, ben, "it fails")
    assert (row.came_from, row.went_to, row.version) == (ON, OFF, 4)
    with pytest.raises(StaleStage, match="moved by ben: it fails"):
        move("billing", 3, Placement.of(Stage.RAMP, Decimal(50)), anna, "somewhat less")


@pytest.mark.django_db
def test_what_was_no_move_down_for_who_asked_does_not_win(anna, ben):
    move("billing", 0, RAMP, anna, "start")
    move("billing", 1, ON, anna, "all")
    with pytest.raises(StaleStage):
        move("billing", 1, Placement.of(Stage.RAMP, Decimal(50)), ben, "a little more")
    assert Flag.objects.get().placement == ON


@pytest.mark.django_db
def test_a_reshuffle_is_an_act_of_its_own_that_draws_other_users_and_keeps_the_stage(anna, make_user):
    with pytest.raises(IllegalMove, match="never moved"):
        reshuffle("billing", 0, anna, "others")
    move("billing", 0, RAMP, anna, "start")
    before = Flag.objects.get().salt
    with pytest.raises(StaleStage):
        reshuffle("billing", 0, anna, "others")
    with pytest.raises(MoveNotAllowed):
        reshuffle("billing", 1, person(make_user("nobody")), "others")
    row = reshuffle("billing", 1, anna, "others")
    assert (row.act, row.version, row.came_from, row.went_to) == (Act.RESHUFFLE, 2, RAMP, RAMP)
    assert Flag.objects.get().salt not in {"", before}
    assert Flag.objects.get().placement == RAMP


@pytest.mark.django_db
def test_the_numbers_that_a_mover_saw_are_kept_in_the_trail(anna):
    assert move("billing", 0, RAMP, anna, "start", {"clean": 65}).numbers == {"clean": 65}
    assert Move.objects.get().numbers == {"clean": 65}


@pytest.mark.django_db
def test_who_saw_an_old_version_is_told_who_was_faster_and_why(anna, ben):
    move("billing", 0, RAMP, ben, "ben was here")
    with pytest.raises(StaleStage, match=r"ramp at 25 % now, at version 1, moved by ben: ben was here"):
        move("billing", 0, ON, anna, "go")
    assert Flag.objects.get(name="billing").placement == RAMP


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("moves_before", [0, 2], ids=["no row yet", "a row"])
def test_of_many_moves_at_once_one_wins_and_the_others_are_told(anna, moves_before):
    for version in range(moves_before):
        move("billing", version, ON if version % 2 == 0 else OFF, anna, "before")
    movers = 6
    start = threading.Barrier(movers)
    outcomes: list[str] = []

    def try_to_move(number):
        try:
            start.wait()
            to = Placement.of(Stage.RAMP, Decimal(number))
            move("billing", moves_before, to, Mover(MoverKind.PERSON, f"mover {number}", None, RIGHTS), "mine")
            outcomes.append("won")
        except MoveRefused as refusal:
            outcomes.append(type(refusal).__name__)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=try_to_move, args=(number,)) for number in range(movers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["StaleStage"] * (movers - 1) + ["won"]
    flag = Flag.objects.get(name="billing")
    assert flag.version == moves_before + 1 == Move.objects.count()
    assert Move.objects.first().went_to == flag.placement


@pytest.mark.django_db
def test_a_move_that_is_rolled_back_leaves_no_audit_row(anna):
    with transaction.atomic():
        move("billing", 0, RAMP, anna, "start")
        transaction.set_rollback(True)
    assert not Move.objects.exists()


@pytest.mark.django_db
def test_only_who_has_the_right_may_move(make_user):
    nobody = make_user("nobody", is_staff=True)
    with pytest.raises(MoveNotAllowed, match=r"nobody lacks the permission rollout\.move_stage"):
        move("billing", 0, RAMP, person(nobody), "start")
    with pytest.raises(MoveNotAllowed):
        move("billing", 0, RAMP, person(AnonymousUser()), "start")
    assert not Flag.objects.exists()
    move("billing", 0, RAMP, person(make_user("mover", MOVE_STAGE)), "start")
    move("billing", 1, ON, operator(), "from a shell")
    assert Flag.objects.get(name="billing").version == 2


@pytest.mark.django_db
def test_to_retire_a_seam_is_a_right_of_its_own(make_user):
    with pytest.raises(MoveNotAllowed, match="retire_seam"):
        move("search", 0, Placement(Stage.RETIRED), person(make_user("mover", MOVE_STAGE)), "done")


@pytest.mark.django_db
def test_automation_only_moves_down_and_latches_until_a_person_acknowledges(anna):
    move("billing", 0, RAMP, anna, "start")
    with pytest.raises(IllegalMove, match="automation only moves down"):
        move("billing", 1, ON, GUARD, "evidence")
    move("billing", 1, OFF, GUARD, "30 % of runs failed")
    with pytest.raises(SeamLatched, match="30 % of runs failed"):
        move("billing", 2, RAMP, anna, "once more")
    with pytest.raises(ReasonMissing):
        acknowledge("billing", 2, anna, "")
    with pytest.raises(StaleStage):
        acknowledge("billing", 1, anna, "the provider was down")
    acknowledge("billing", 2, anna, "the provider was down")
    move("billing", 3, RAMP, anna, "once more")
    assert [row.why for row in Move.objects.all()][1] == "the provider was down"


@pytest.mark.django_db
def test_a_latched_seam_can_still_go_down(anna):
    move("billing", 0, ON, anna, "start")
    move("billing", 1, RAMP, GUARD, "slow")
    move("billing", 2, OFF, anna, "all the way")
    assert Flag.objects.get(name="billing").placement == OFF


@pytest.mark.django_db
def test_to_acknowledge_is_a_right_of_its_own(anna, make_user):
    move("billing", 0, ON, anna, "start")
    move("billing", 1, OFF, GUARD, "slow")
    with pytest.raises(MoveNotAllowed, match="acknowledge_breach"):
        acknowledge("billing", 2, person(make_user("mover", MOVE_STAGE)), "fine")


@pytest.mark.django_db
def test_a_seam_that_is_not_latched_cannot_be_acknowledged(anna):
    with pytest.raises(IllegalMove, match="nothing to acknowledge"):
        acknowledge("billing", 0, anna, "fine")


@pytest.mark.django_db
def test_the_audit_trail_is_append_only(anna):
    row = move("billing", 0, RAMP, anna, "start")
    row.why = "never said"
    with pytest.raises(AppendOnly):
        row.save()
    with pytest.raises(AppendOnly):
        row.delete()
    with pytest.raises(AppendOnly):
        Move.objects.update(why="never said")
    with pytest.raises(AppendOnly):
        Move.objects.filter(seam="billing").delete()
    assert Move.objects.get().why == "start"


@pytest.mark.django_db
@pytest.mark.parametrize(
    "silent",
    [
        {"everyone": None},
        {"everyone": False},
        {"stage": "off"},
        {"stage": "ramp"},
        {"stage": "ramp", "everyone": None, "share_buckets": 10_001},
        {"share_buckets": 5},
        {"stage": "perhaps"},
    ],
)
def test_the_database_refuses_a_silent_update_that_makes_stage_and_everyone_disagree(anna, silent):
    move("billing", 0, ON, anna, "start")
    with pytest.raises(IntegrityError), transaction.atomic():
        Flag.objects.filter(name="billing").update(**silent)
    assert Flag.objects.get(name="billing").placement == ON
