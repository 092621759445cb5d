"""The reducer alone: what each event makes of a thread."""

from typing import Any

import pytest
from ag_ui.core import BaseEvent, CustomEvent, RunErrorEvent, RunFinishedEvent, RunStartedEvent

from apps.chat.messages import moment
from apps.chat.projection import ThreadView
from tests.chat.chat_room import called, spoken

AT = 1_800_000_000.0


class Told:
    """A view that is told events of thread `t`, a millisecond apart."""

    def __init__(self) -> None:
        self.view = ThreadView("t")
        self.at = AT

    def queued(self, run_id: str, message_id: str, **message: Any) -> "Told":
        fields = {"id": message_id, "role": "user", "content": f"text of {message_id}", "createdAt": moment(self.at)}
        return self.tell(
            run_id, CustomEvent(name="turnout.run.queued", value={"place": 1, "message": fields | message})
        )

    def tell(self, run_id: str | None, *events: BaseEvent | dict[str, Any], thread_id: str = "t") -> "Told":
        for event in events:
            wire = event if isinstance(event, dict) else event.model_dump(mode="json", by_alias=True)
            self.at += 0.001
            self.view.apply({"thread_id": thread_id, "run_id": run_id, "at": self.at, "event": wire})
        return self

    @property
    def parents(self) -> dict[str, str | None]:
        return {row.message_id: row.parent_id for row in self.view.messages.values()}

    @property
    def leaf(self) -> str | None:
        return self.view.leaf_id

    def message(self, message_id: str) -> dict[str, Any]:
        return self.view.find(message_id).as_json()


def started() -> RunStartedEvent:
    return RunStartedEvent(thread_id="t", run_id="r")


def test_a_text_grows_and_is_complete_when_it_ends():
    told = Told().queued("r", "u")
    start, first, second, end = spoken("half ", "done", message_id="a")
    told.tell("r", started(), start, first)
    assert (told.message("a")["text"], told.message("a")["complete"]) == ("half ", False)
    told.tell("r", second, end)
    assert (told.message("a")["text"], told.message("a")["complete"]) == ("half done", True)


def test_answers_of_a_run_are_a_chain_behind_the_users_message():
    told = Told().queued("r", "u").tell("r", *spoken("1", message_id="a"), *spoken("2", message_id="b"))
    assert told.parents == {"u": None, "a": "u", "b": "a"}
    assert told.leaf == "b"


def test_a_tool_call_belongs_to_the_newest_answer_and_holds_its_result():
    told = Told().queued("r", "u").tell("r", *spoken("look", message_id="a"), *called("clock", "{}", "noon", "c"))
    assert told.message("a")["parts"] == [
        {"type": "tool_call", "id": "c", "name": "clock", "arguments": "{}", "result": "noon", "complete": True}
    ]


def test_a_tool_call_that_names_an_earlier_answer_belongs_to_that_one():
    told = Told().queued("r", "u").tell("r", *spoken("1", message_id="a"), *spoken("2", message_id="b"))
    told.tell("r", *called("clock", "{}", "noon", "c", parent="a"))
    assert [len(told.message(one)["parts"]) for one in ("a", "b")] == [1, 0]


def test_a_tool_call_before_any_text_begins_an_answer_without_text():
    told = Told().queued("r", "u").tell("r", *called("clock", "{}", "noon", "c"), *spoken("12", message_id="a"))
    assert told.parents == {"u": None, "c": "u", "a": "c"}
    assert told.message("c")["text"] == ""


def test_a_text_that_comes_after_its_parts_is_marked_at_its_place():
    told = Told().queued("r", "u")
    told.tell("r", *called("clock", "{}", "noon", "c", parent="a"), *spoken("12", message_id="a"))
    assert [part["type"] for part in told.message("a")["parts"]] == ["tool_call", "text"]


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (RunFinishedEvent(thread_id="t", run_id="r"), "succeeded"),
        ({"type": "RUN_FINISHED", "outcome": {"type": "success"}}, "succeeded"),
        ({"type": "RUN_FINISHED", "outcome": {"type": "cancelled"}}, "cancelled"),
        ({"type": "RUN_FINISHED", "outcome": {"type": "interrupt", "interrupts": []}}, "waiting"),
        (RunErrorEvent(code="timeout", message="m"), "timed_out"),
        (RunErrorEvent(code="interrupted", message="m"), "interrupted"),
        (RunErrorEvent(code="agent_error", message="m"), "failed"),
    ],
)
def test_a_terminal_event_gives_the_run_its_status(event, status):
    told = Told().queued("r", "u").tell("r", started(), event)
    assert told.view.runs["r"].status == status


def test_interrupts_are_open_until_they_are_closed():
    interrupt = {"id": "i", "reason": "approval", "toolCallId": "c"}
    told = Told().queued("r", "u")
    told.tell("r", {"type": "RUN_FINISHED", "outcome": {"type": "interrupt", "interrupts": [interrupt]}})
    assert told.view.as_json()["interrupts"] == [{"run_id": "r", **interrupt}]
    told.tell("r", CustomEvent(name="turnout.interrupt.closed", value={"interrupt_id": "i", "how": "expired"}))
    assert told.view.as_json()["interrupts"] == []


def test_a_message_queued_behind_a_run_comes_after_its_answers_as_they_come():
    told = Told().queued("r", "u").tell("r", *spoken("1", message_id="a"))
    told.queued("s", "v", parentId="a", afterRunId="r")
    told.tell("r", *spoken("2", message_id="b"))
    assert told.parents == {"u": None, "a": "u", "v": "b", "b": "a"}
    assert told.leaf == "v"


def test_an_answer_begun_between_admission_and_its_event_is_not_left_out():
    told = Told().queued("r", "u").tell("r", *spoken("1", message_id="a"), *spoken("2", message_id="b"))
    told.queued("s", "v", parentId="a", afterRunId="r")
    assert told.parents["v"] == "b"


def test_answering_again_keeps_one_users_message_and_shows_the_new_answer():
    told = Told().queued("r", "u").tell("r", *spoken("1", message_id="a"))
    told.queued("s", "u")
    assert told.leaf == "u"
    told.tell("s", *spoken("2", message_id="b"))
    assert told.parents == {"u": None, "a": "u", "b": "u"}
    assert told.leaf == "b"


def test_a_branch_that_is_not_shown_does_not_take_the_leaf():
    told = Told().queued("r", "u").tell("r", *spoken("1", message_id="a"))
    told.queued("s", "v").tell("r", *spoken("2", message_id="b"))
    assert told.leaf == "v"


def test_messages_stay_in_the_order_of_their_run_when_the_clock_goes_back():
    told = Told().queued("r", "u").tell("r", *spoken("1", message_id="a"))
    told.at -= 5
    told.tell("r", *spoken("2", message_id="b"))
    assert [row.message_id for row in told.view.in_order()] == ["u", "a", "b"]


def test_entries_of_other_threads_and_of_unknown_runs_change_nothing():
    told = Told().queued("r", "u")
    before = told.view.as_json()
    told.tell("r", *spoken("x"), thread_id="other").tell("unknown", started(), *spoken("x"))
    assert told.view.as_json() == before


def test_a_new_place_in_the_queue_and_removed_events_change_nothing():
    told = Told().queued("r", "u")
    before = told.view.as_json()
    told.tell(
        "r", CustomEvent(name="turnout.run.queued", value={"place": 3}), CustomEvent(name="turnout.removed", value=None)
    )
    assert told.view.as_json() == before


def test_the_end_of_a_branch_follows_its_newest_children():
    told = Told().queued("r", "u").tell("r", *spoken("1", message_id="a")).queued("s", "v", parentId="a")
    told.queued("q", "w", parentId="a")
    assert told.view.end_of(told.view.find("u")).message_id == "w"


def test_ids_used_in_a_circle_end_somewhere():
    told = Told().queued("r", "u").tell("r", *spoken("1", message_id="same"))
    told.queued("s", "v", parentId="same").tell("s", *spoken("2", message_id="same"))
    assert told.view.end_of(told.view.find("u")) is not None
