"""What stands in an event stream: exactly the thread's events, once, wherever a client was cut off."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.chat.authentication import TokenPrincipal
from apps.chat.sse import Following, Shape, ThreadEvents, Until, block, parse_event_id
from apps.vocabulary import Identity, Position, Refusal, RunId, ThreadId, UserId

EPOCH, TAG = "0" * 16, "a" * 16
ANN = TokenPrincipal(Identity(UserId(1), "ann"), 1)


def at(seq):
    return Position(EPOCH, seq, TAG)


def asked(**more):
    return Following(**{"principal": ANN, "thread_id": ThreadId("t"), "after": at(0)} | more)


def entry(seq, kind="TEXT_MESSAGE_CONTENT", thread="t", run="r", **more):
    return {"seq": seq, "thread_id": thread, "run_id": run, "at": 1.0, "event": {"type": kind, **more}}


def frame(*entries):
    return {"type": "events", "events": list(entries), "position": str(at(entries[-1]["seq"]))}


def read(events, *frames):
    return [told for page in frames for told in events.take(page)]


def shown(told):
    return [one.event["type"] for one in told if one.event is not None]


def run(first, run_id, *kinds):
    return [
        entry(first + number, kind, run=run_id) for number, kind in enumerate(("RUN_STARTED", *kinds, "RUN_FINISHED"))
    ]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.lists(st.sampled_from("tu"), min_size=40), st.data())
def test_whoever_comes_back_with_an_id_goes_on_with_the_next_event(sizes, threads, data):
    pages, seq = [], 0
    for size in sizes:
        pages.append(frame(*(entry(seq + number + 1, thread=threads[seq + number]) for number in range(size))))
        seq += size
    shape = Shape.ENTRIES
    everything = read(ThreadEvents(asked(shape=shape)), *pages)
    cut = data.draw(st.integers(1, len(everything)))
    position, behind = parse_event_id(everything[cut - 1].place)
    resumed = ThreadEvents(asked(shape=shape, after=position, behind=behind))
    later = [page for page in pages if page["events"][0]["seq"] > position.seq]
    rest = [told.event for told in read(resumed, *later) if told.event is not None]
    before = [told.event for told in everything[:cut] if told.event is not None]
    wanted = [one for page in pages for one in page["events"] if one["thread_id"] == "t"]
    assert before + rest == wanted


def test_a_page_without_anything_of_the_thread_moves_the_place_alone():
    (told,) = read(ThreadEvents(asked(shape=Shape.ENTRIES)), frame(entry(1, thread="other"), entry(2, thread="other")))
    assert (told.event, told.place) == (None, str(at(2)))


def test_a_stock_client_sees_one_run_after_the_other_although_another_is_cancelled_in_the_queue_meanwhile():
    one = run(1, "one", "TEXT_MESSAGE_START", "TEXT_MESSAGE_END")
    inside = [entry(8, "RUN_STARTED", run="two"), entry(9, "RUN_FINISHED", run="two")]
    told = read(ThreadEvents(asked()), frame(*one[:2], *inside, *one[2:]))
    assert shown(told) == ["RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_END", "RUN_FINISHED"]


def test_a_stock_client_sees_no_event_of_turnouts_own_and_those_of_agents():
    own = entry(1, "CUSTOM", name="turnout.run.queued", value={})
    agents = entry(3, "CUSTOM", name="progress", value=1)
    told = read(ThreadEvents(asked()), frame(own, entry(2, "RUN_STARTED"), agents))
    assert shown(told) == ["RUN_STARTED", "CUSTOM"]


def test_whoever_begins_anew_sees_nothing_before_a_run_begins_and_gets_no_place_there():
    tail = [entry(1), entry(2, "RUN_FINISHED")]
    events = ThreadEvents(asked(rebuilt=True))
    assert read(events, frame(*tail)) == []
    told = read(events, frame(*run(3, "two", "TEXT_MESSAGE_START")))
    assert shown(told) == ["RUN_STARTED", "TEXT_MESSAGE_START", "RUN_FINISHED"]
    assert told[0].begins == "two"


def test_a_stream_of_one_run_waits_for_its_beginning_and_ends_with_its_end():
    events = ThreadEvents(asked(run_id=RunId("two"), until=Until.RUN_END))
    told = read(events, frame(*run(1, "one")), frame(*run(3, "two"), *run(5, "three")))
    assert shown(told) == ["RUN_STARTED", "RUN_FINISHED"]
    assert events.ended
    assert told[-1].event["type"] == "RUN_FINISHED"


def test_who_sent_the_message_is_not_sent_it_again():
    started = entry(1, "RUN_STARTED", input={"messages": []})
    (echoed,) = read(ThreadEvents(asked()), frame(started))
    (silent,) = read(ThreadEvents(asked(echoes_input=False)), frame(started))
    assert "input" in echoed.event
    assert "input" not in silent.event


@given(st.text())
def test_an_event_is_one_data_line_whatever_is_in_it(text):
    text = text.encode(errors="replace").decode()
    data = block({"delta": text})
    assert data.count(b"\n") == 2
    assert orjson.loads(data.removeprefix(b"data: ")) == {"delta": text}


@pytest.mark.parametrize(
    "odd", ["x", "1", f"{at(1)}+0", f"{at(1)}+-1", f"{at(1)}+1000000", f"{at(1)}+1\n", "+1", f"{at(1)} "]
)
def test_an_id_that_no_server_sent_is_refused(odd):
    with pytest.raises(Refusal, match="Last-Event-ID"):
        parse_event_id(odd)
