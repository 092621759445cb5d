from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.rollout.stages import (
    BUCKETS,
    LEGAL_MOVES,
    IllegalMove,
    IllegalShare,
    MoverKind,
    Placement,
    ReasonMissing,
    Stage,
    Standing,
    bucket_of,
    check_move,
    check_reason,
    path_for,
)
from apps.vocabulary import UserId

users = st.integers(min_value=1, max_value=2**63 - 1).map(UserId)
shares = st.integers(min_value=0, max_value=BUCKETS)
placements = st.one_of(
    st.sampled_from([Stage.OFF, Stage.SHADOW, Stage.ON, Stage.RETIRED]).map(Placement),
    shares.map(lambda share: Placement(Stage.RAMP, share)),
)


def served(share, user_id, salt="salt"):
    standing = Standing(bucket=bucket_of("billing", salt, user_id))
    return path_for(Placement(Stage.RAMP, share), standing)


@given(shares, shares, users)
def test_raising_the_share_only_adds_users(one, other, user_id):
    low, high = sorted((one, other))
    assert served(low, user_id) == "legacy" or served(high, user_id) == "factory"


@given(st.lists(shares, max_size=6), shares, users)
def test_going_down_and_up_again_finds_the_same_users(way, share, user_id):
    before = served(share, user_id)
    for elsewhere in way:
        served(elsewhere, user_id)
    assert served(share, user_id) == before


@given(users)
def test_nobody_is_in_a_share_of_nothing_and_everybody_in_the_whole(user_id):
    assert served(0, user_id) == "legacy"
    assert served(BUCKETS, user_id) == "factory"


@pytest.mark.parametrize("share", [100, 1000, 5000])
def test_a_share_holds_about_as_many_users_as_it_says(share):
    chosen = sum(served(share, UserId(n)) == "factory" for n in range(1, 20_001))
    assert abs(chosen / 20_000 - share / BUCKETS) < 0.012


def test_another_salt_and_another_seam_draw_other_users():
    ids = [UserId(n) for n in range(1, 2_001)]
    drawn = [{n for n in ids if bucket_of(seam, salt, n) < 5000} for seam, salt in [("a", "b"), ("a", "c"), ("x", "b")]]
    assert all(len(one & other) < 1_200 for one in drawn for other in drawn if one is not other)


def test_a_user_keeps_their_bucket_over_releases():
    assert [bucket_of("billing", "5f", UserId(n)) for n in (1, 2, 3)] == [3900, 8173, 8924]


def test_a_share_of_n_buckets_holds_the_first_n_and_no_more():
    own = bucket_of("billing", "salt", UserId(1))
    assert served(own, UserId(1)) == "legacy"
    assert served(own + 1, UserId(1)) == "factory"


def test_a_seam_and_a_salt_that_join_to_the_same_text_draw_different_users():
    assert bucket_of("a:b", "c", UserId(1)) != bucket_of("a", "b:c", UserId(1))
    assert bucket_of("ab", "c", UserId(1)) != bucket_of("a", "bc", UserId(1))
    assert bucket_of("a", "b1", UserId(2)) != bucket_of("a", "b", UserId(12))


@given(placements, users)
def test_the_deny_list_beats_everything_but_retired(placement, user_id):
    standing = Standing(bucket=bucket_of("billing", "salt", user_id), denied=True, chosen=True)
    assert path_for(placement, standing) == ("factory" if placement.stage is Stage.RETIRED else "legacy")


@given(st.booleans(), st.sampled_from([Stage.OFF, Stage.SHADOW, Stage.ON, Stage.RETIRED]), users)
def test_only_a_ramp_looks_at_who_the_user_is(chosen, stage, user_id):
    standing = Standing(bucket=bucket_of("billing", "salt", user_id), chosen=chosen)
    assert (path_for(Placement(stage), standing) == "factory") is bool(stage.everyone)


def test_a_ramp_of_nothing_serves_the_chosen_users_by_the_factory():
    assert path_for(Placement(Stage.RAMP, 0), Standing(bucket=9_999, chosen=True)) == "factory"


def test_a_visitor_without_an_id_is_in_no_share():
    assert path_for(Placement(Stage.RAMP, BUCKETS), Standing(bucket=None)) == "legacy"


@given(placements, placements, st.sampled_from(MoverKind))
def test_a_move_passes_exactly_when_the_table_says_so(now, to, by):
    legal = to.stage in LEGAL_MOVES[now.stage] and to != now
    if legal and not (by is MoverKind.AUTOMATION and to.is_above(now)):
        check_move(now, to, by)
    else:
        with pytest.raises(IllegalMove):
            check_move(now, to, by)


def test_an_illegal_move_says_what_would_have_been_legal():
    with pytest.raises(IllegalMove, match=r"from retired go to: on$"):
        check_move(Placement(Stage.RETIRED), Placement(Stage.OFF), MoverKind.PERSON)


def test_from_every_stage_but_retired_a_way_leads_straight_to_off():
    assert all(Stage.OFF in LEGAL_MOVES[stage] for stage in Stage if stage not in {Stage.OFF, Stage.RETIRED})


@pytest.mark.parametrize("why", ["", " ", "\n\t"])
def test_a_reason_of_nothing_is_no_reason(why):
    with pytest.raises(ReasonMissing):
        check_reason(why)


@given(placements, placements)
def test_of_two_places_exactly_one_is_above_the_other(one, other):
    assert (one == other) + one.is_above(other) + other.is_above(one) == 1


@pytest.mark.parametrize("percent", ["-0.01", "100.01", "0.001", "NaN", "Infinity", "33.333"])
def test_a_share_that_no_bucket_holds_is_refused(percent):
    with pytest.raises(IllegalShare):
        Placement.of(Stage.RAMP, Decimal(percent))


def test_a_ramp_needs_a_share_and_no_other_stage_has_one():
    with pytest.raises(IllegalShare):
        Placement.of(Stage.RAMP)
    with pytest.raises(IllegalShare):
        Placement.of(Stage.ON, Decimal(50))


@given(shares)
def test_a_share_in_percent_comes_back_as_the_same_buckets(share):
    assert Placement.of(Stage.RAMP, Placement(Stage.RAMP, share).percent) == Placement(Stage.RAMP, share)


def test_a_placement_reads_as_people_say_it():
    assert [str(Placement.of(Stage.RAMP, Decimal(text))) for text in ("12.50", "100", "0")] == [
        "ramp at 12.5 %",
        "ramp at 100 %",
        "ramp at 0 %",
    ]
    assert str(Placement(Stage.OFF)) == "off"
