"""The judge of histories: what is right passes, and each kind of damage is seen where it belongs."""

import copy
import json

import pytest
from django.core.management import call_command
from hypothesis import given
from hypothesis import strategies as st

from apps.operations.histories import HistoryCheck, MalformedHistory, check_lines
from apps.realtime.erasing import REMOVED
from apps.realtime.models import Segment
from tests.operations.world import World

EPOCH, TAG = "a" * 16, "b" * 16


def position(seq):
    return f"{EPOCH}.{seq}.{TAG}"


def entry(seq, kind="TEXT_MESSAGE_CONTENT", run_id="run-7", **event):
    return {"seq": seq, "thread_id": "t", "run_id": run_id, "at": 1.0, "event": {"type": kind, "n": seq, **event}}


def log(user="7", events=6, run_id="run-7"):
    entries = [entry(seq, run_id=run_id) for seq in range(1, events)] + [entry(events, "RUN_FINISHED", run_id)]
    return [(user, one) for one in entries]


def tab(entries, cuts=(), after=0, user="7", name="tab"):
    """A tab that was sent these entries, in frames that end at the cuts; at each it reconnects as well."""
    lines = [{"what": "subscribed", "after": position(after)}]
    frame = []
    for one in entries:
        frame.append(one)
        if one["seq"] in cuts or one is entries[-1]:
            lines.append({"what": "events", "events": frame, "position": position(one["seq"])})
            lines += [{"what": "acked", "seq": one["seq"]}, {"what": "subscribed", "after": position(one["seq"])}]
            frame = []
    return [{"client": name, "user": user, **line} for line in [*lines, {"what": "done"}]]


def sent(logged):
    return [copy.deepcopy(one) for _, one in logged]


def broken(logged, said):
    return {line.name for line in check_lines(logged, said).broken}


@given(cuts=st.sets(st.integers(1, 6)), after=st.integers(0, 5))
def test_a_tab_that_was_sent_everything_once_in_any_frames_over_any_connections_is_right(cuts, after):
    logged = log()
    assert broken(logged, tab(sent(logged)[after:], cuts, after)) == set()


def without(number):
    return lambda entries: entries[: number - 1] + entries[number:]


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (without(3), "No event is lost"),
        (without(6), "No event is lost"),
        (lambda entries: [*entries[:3], entries[2], *entries[3:]], "No event comes twice"),
        (lambda entries: [entries[1], entries[0], *entries[2:]], "No event comes twice"),
        (
            lambda entries: [*entries[:2], entries[2] | {"event": {}}, *entries[3:]],
            "Byte for byte as logged",
        ),
        (lambda entries: [*entries[:2], entries[2] | {"run_id": "run-8"}, *entries[3:]], "Nobody else's event"),
        (lambda entries: [*entries, entry(7)], "Nothing that is not logged"),
    ],
)
def test_each_damage_is_seen(damage, name):
    logged = log() + log("8", run_id="run-8")
    assert name in broken(logged, tab(damage(sent(logged)[:6])))


def test_a_gap_in_the_log_two_ends_and_no_end_are_seen():
    logged = log()
    assert broken(logged[:2] + logged[3:], []) == {"The log has no gap"}
    twice = [*log(), ("7", entry(7, "RUN_ERROR"))]
    assert broken(twice, tab(sent(twice))) == {"One end a run"}
    assert broken(twice[:5], tab(sent(twice[:5]))) == {"One end a run"}
    unfinished = tab(sent(twice[:5]))[:-1]
    assert broken(twice[:5], unfinished) == set(), "it may still be at work"


def test_acks_positions_and_events_before_a_subscribe_are_judged():
    logged = log()
    right = tab(sent(logged))
    acked_too_much = [line | {"seq": 9} if line["what"] == "acked" else line for line in right]
    assert broken(logged, acked_too_much) == {"Acks are of what was sent"}
    misplaced = [line | {"position": position(4)} if line["what"] == "events" else line for line in right]
    assert broken(logged, misplaced) == {"In order"}
    assert broken(logged, right[1:]) == {"In order"}


def test_after_a_reset_a_client_goes_on_where_its_snapshot_was():
    logged = log()
    said = tab(sent(logged)[:2])[:-2]
    said.append({"client": "tab", "user": "7", "what": "reset", "head": position(5)})
    said += tab(sent(logged)[5:], after=5)
    assert broken(logged, said) == set()


def test_what_was_blanked_is_not_compared_and_what_was_trimmed_is_counted():
    logged = log()
    said = tab(sent(logged))
    logged[2] = ("7", logged[2][1] | {"event": REMOVED})
    report = check_lines(logged[1:], said)
    assert report.broken == ()
    assert "1 of 6 events are no longer in the log" in report.as_text()


@pytest.mark.parametrize("line", [{}, {"client": "a", "user": "7", "what": "said"}, {"client": "a", "user": "7"}])
def test_a_line_that_no_client_writes_is_refused(line):
    with pytest.raises(MalformedHistory):
        HistoryCheck().said(line)


# -- the command


def run(*arguments, capsys):
    try:
        call_command("check_history", *map(str, arguments))
    except SystemExit as ended:
        return int(ended.code), capsys.readouterr().out
    return 0, capsys.readouterr().out


@pytest.mark.django_db
def test_the_command_judges_by_the_database_or_by_a_file_and_says_so_by_its_status(tmp_path, capsys):
    world = World()
    ann = world.user("ann")
    world.ended(ann)
    stored = [one for row in Segment.objects.order_by("first_seq") for one in json.loads(row.payload)]
    said = tmp_path / "said.jsonl"
    said.write_text("".join(json.dumps(line) + "\n" for line in tab(stored, user=str(ann.user_id))))
    assert run(said, capsys=capsys)[0] == 0
    status, shown = run(said, "--json", capsys=capsys)
    assert (status, json.loads(shown)["broken"]) == (0, 0)

    kept = tmp_path / "log.jsonl"
    kept.write_text("".join(json.dumps({"user": ann.user_id, **one}) + "\n" for one in stored[:-1]))
    status, shown = run(said, "--log", kept, capsys=capsys)
    assert status == 1
    assert "Nothing that is not logged  BROKEN" in shown


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["not json\n", "[1]\n", '{"client": "a"}\n', None])
def test_what_cannot_be_read_is_no_good_news(tmp_path, capsys, text):
    file = tmp_path / "said.jsonl"
    if text is not None:
        file.write_text(text)
    status, shown = run(file, capsys=capsys)
    assert status == 2
    assert shown.startswith("History: could not look: ")
