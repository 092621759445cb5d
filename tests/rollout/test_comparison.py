import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.rollout.comparison import Result, Vote, decide, diff_of, normalised, redacted, same, shape_of


def said(*pieces, message="m"):
    start = {"type": "TEXT_MESSAGE_START", "messageId": message, "role": "assistant"}
    end = {"type": "TEXT_MESSAGE_END", "messageId": message}
    deltas = [{"type": "TEXT_MESSAGE_CONTENT", "messageId": message, "delta": piece} for piece in pieces]
    return [start, *deltas, end]


def vote(*pieces, **how):
    return Vote(said(*pieces), **how)


def of_subagent(events, run_id, name, parent=None):
    started = {"type": "SUBAGENT_STARTED", "subagentRunId": run_id, "name": name, "parentSubagentRunId": parent}
    finished = {"type": "SUBAGENT_FINISHED", "subagentRunId": run_id}
    return started, [event | {"subagentRunId": run_id} for event in events], finished


def test_ids_drawn_anew_and_the_cut_of_deltas_do_not_count():
    one = Vote([*said("a ", "b", message="1"), *said("c", message="2")])
    other = Vote([*said("a", " b", message="x"), *said("", "c", message="y")])
    assert same(one, other)


def test_which_id_is_used_again_does_count():
    one = Vote([{"type": "TOOL_CALL_START", "toolCallId": "1"}, {"type": "TOOL_CALL_END", "toolCallId": "1"}])
    other = Vote([{"type": "TOOL_CALL_START", "toolCallId": "1"}, {"type": "TOOL_CALL_END", "toolCallId": "2"}])
    assert not same(one, other)


@pytest.mark.parametrize("other", [said("a"), said("a", "b "), [*said("a", "b"), {"type": "STEP_STARTED"}]])
def test_what_is_said_does_count(other):
    assert not same(Vote(said("a", "b")), Vote(other))


def test_how_it_ended_does_count():
    assert not same(vote("a"), vote("a", ending="agent_error: no"))


def test_times_and_the_providers_own_events_do_not_count():
    noted = {"timestamp": 7, "rawEvent": {"x": 1}, "metadata": {"y": 2}}
    assert same(Vote([{"type": "STEP_STARTED"} | noted]), Vote([{"type": "STEP_STARTED"}]))


@given(st.randoms(use_true_random=False))
def test_subagents_may_speak_at_the_same_time_in_any_order(chance: random.Random):
    branches = [of_subagent(said(f"I am {name}", message=f"m{n}"), f"s{n}", name) for n, name in enumerate("abb")]

    def woven(rnd):
        events = [started for started, _, _ in branches]
        queues = [[*spoken, finished] for _, spoken, finished in branches]
        ends = []
        while any(queues):
            queue = rnd.choice([queue for queue in queues if queue])
            event = queue.pop(0)
            (ends if event["type"] == "SUBAGENT_FINISHED" else events).append(event)
        return [*events, *sorted(ends, key=lambda event: event["subagentRunId"])]

    assert same(Vote(woven(random.Random(1))), Vote(woven(chance)))


def test_the_order_within_a_subagent_does_count():
    started, spoken, finished = of_subagent([*said("a", message="1"), *said("b", message="2")], "s", "helper")
    swapped = spoken[3:] + spoken[:3]
    assert not same(Vote([started, *spoken, finished]), Vote([started, *swapped, finished]))


def test_a_nested_subagent_is_named_by_those_above_it():
    started, _, finished = of_subagent([], "outer", "supervisor")
    inner, spoken, end = of_subagent(said("x"), "inner", "metronome", parent="outer")
    form = normalised(Vote([started, inner, *spoken, end, finished]))
    assert set(form) == {"main", "main/supervisor 1", "main/supervisor 1/metronome 1"}


A, B, C = vote("a"), vote("b"), vote("c")
ASKED = {"ending": "CallNotRecorded", "diverged": "tool search search.123"}


@pytest.mark.parametrize(
    ("live", "private", "factory", "result"),
    [
        (A, A, A, Result.MATCHED),
        (A, B, A, Result.MATCHED),
        (A, A, B, Result.MISMATCHED),
        (A, None, B, Result.MISMATCHED),
        (A, B, B, Result.LEGACY_WRONG),
        (A, B, C, Result.IGNORED),
        (A, A, vote(**ASKED), Result.DIVERGED),
        (A, vote(**ASKED), vote(**ASKED), Result.DIVERGED),
        (A, vote(**ASKED), vote(conversation_differs=True, **ASKED), Result.LEGACY_WRONG),
        (A, vote(**ASKED), B, Result.DIVERGED),
        (A, None, vote(**ASKED), Result.DIVERGED),
    ],
)
def test_three_votes_say_who_differs(live, private, factory, result):
    assert decide(live, private, factory).result is result


def test_a_shape_says_where_streams_begin_to_differ_and_nothing_of_what_was_said():
    assert shape_of(vote("secret one"), vote("secret two")) == "main: TEXT_MESSAGE_CONTENT.delta differs"
    assert shape_of(Vote(said("a")[:2]), vote("a")) == "main: TEXT_MESSAGE_END instead of END"
    assert shape_of(vote("a"), vote("a", ending="ValueError")) == "main: END.how differs"
    started, spoken, finished = of_subagent(said("a"), "s", "helper")
    cut = Vote([started, *spoken[:-1], finished])
    assert shape_of(Vote([started, *spoken, finished]), cut) == "main/helper: TEXT_MESSAGE_END is missing"


def test_a_diff_is_readable_redacted_and_bounded():
    diff = diff_of(vote("the key is sk-abcdefghijklmnopqrstuvwxyz0123"), vote("no key, ask anna@example.org"))
    assert "-  delta: the key is [hidden]" in diff
    assert "+  delta: no key, ask [hidden]" in diff
    long = diff_of(Vote([e for n in range(200) for e in said(f"{n}", message=str(n))]), vote("x" * 5_000))
    assert len(long.splitlines()) <= 61
    assert max(map(len, long.splitlines())) <= 160
    assert "more lines)" in long


def test_redaction_is_linear_in_the_text():
    assert redacted("a" * 200_000 + " " + "@" * 100_000).startswith("[hidden]")


def test_a_teams_own_comparison_is_asked_for_values():
    one, other = Vote(value={"total": 5, "drawn": 1}), Vote(value={"total": 5, "drawn": 2})
    assert decide(one, None, other, lambda a, b: a["total"] == b["total"]).result is Result.MATCHED
    assert decide(one, None, other, lambda a, b: a == b).result is Result.MISMATCHED


def test_a_comparison_that_raises_is_a_result():
    found = decide(Vote(value=1), None, Vote(value=2), lambda a, b: a["total"] == b["total"])
    assert (found.result, found.shape) == (Result.MISMATCHED, "the comparison raised TypeError")
