"""Snapshot at N + events after N = snapshot at M, for all N < M; and one user's snapshot is nobody else's."""

from random import Random
from typing import Any

import pytest
from ag_ui.core import (
    BaseEvent,
    ReasoningEndEvent,
    ReasoningMessageContentEvent,
    ReasoningMessageEndEvent,
    ReasoningMessageStartEvent,
    ReasoningStartEvent,
    StepStartedEvent,
    SubagentErrorEvent,
    SubagentFinishedEvent,
    SubagentStartedEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    ToolCallArgsEvent,
    ToolCallEndEvent,
    ToolCallResultEvent,
    ToolCallStartEvent,
)
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from apps.chat.messages import MessageView, RunView
from apps.chat.projection import ThreadView
from apps.chat.snapshot import read_snapshot
from apps.execution.fairness import ClaimedRun
from apps.realtime.models import Stream
from apps.realtime.protocol import IfBusy
from apps.vocabulary import Refusal, ThreadId
from tests.chat.chat_room import Room, called, ending_of, spoken

pytestmark = pytest.mark.django_db


def loaded(snapshot: dict[str, Any]) -> ThreadView:
    """What a tab makes of a snapshot; it knows nothing else."""
    thread = snapshot["thread"]
    view = ThreadView(thread["id"], thread["title"], thread["leaf_id"])
    for run in snapshot["runs"]:
        view.hold_run(
            RunView(
                run["id"],
                run["message_id"],
                run["status"],
                run["agent"],
                run["error_code"],
                error_message=run["error_message"],
                after_id=run["after_id"],
            )
        )
    for message in snapshot["messages"]:
        run = view.runs[message["run_id"]]
        if message["role"] == "assistant":
            run.answers += 1
            run.newest_id = message["id"]
        view.hold_message(
            MessageView(
                message["id"],
                message["run_id"],
                message["role"],
                message["created_at"],
                place=run.answers if message["role"] == "assistant" else 0,
                parent_id=message["parent_id"],
                after_run_id=message["after_run_id"],
                pieces=[message["text"]],
                complete=message["complete"],
            )
        )
        for part in message["parts"]:
            view.hold_part(message["run_id"], message["id"], part)
    view.interrupts = {interrupt["id"]: interrupt for interrupt in snapshot["interrupts"]}
    return view


def shown(snapshot: dict[str, Any]) -> dict[str, Any]:
    """The part of a snapshot that events tell."""
    thread = {key: snapshot["thread"][key] for key in ("id", "title", "leaf_id")}
    return {"thread": thread, **{key: snapshot[key] for key in ("messages", "runs", "interrupts")}}


def check_from(starts: list[int], snapshots: list[dict[str, Any]], entries: list[dict[str, Any]]) -> None:
    for number in starts:
        earlier = snapshots[number]
        view = loaded(earlier)
        assert view.as_json() == shown(earlier)
        seq = earlier["seq"]
        for later in snapshots[number + 1 :]:
            for entry in entries[seq : later["seq"]]:
                assert entry["seq"] == seq + 1
                seq = entry["seq"]
                view.apply(entry)
            assert view.as_json() == shown(later), (earlier["seq"], later["seq"])


class Agent:
    """Says legal things, one at a time, as chance has it."""

    def __init__(self, claimed: ClaimedRun, number: int, chance: Random) -> None:
        self.claimed = claimed
        self.chance = chance
        self.open: list[tuple[str, str]] = []
        self.unanswered: list[str] = []
        self.begun: list[tuple[str, str]] = []
        self.name = f"r{number}"

    def next(self) -> list[BaseEvent]:
        choices = ["text", "text", "reasoning", "call", "subagent", "step"]
        choices += ["more", "close"] * 3 * bool(self.open) + ["result"] * 3 * bool(self.unanswered)
        match self.chance.choice(choices):
            case "more":
                return self.more(*self.chance.choice(self.open))
            case "close":
                return self.close(self.chance.randrange(len(self.open)))
            case "result":
                return [self.result()]
            case "step":
                return [StepStartedEvent(step_name="thinking")]
            case kind:
                return self.begin(kind)

    def begin(self, kind: str) -> list[BaseEvent]:
        number = len(self.begun)
        new = f"{self.name}-{number}"
        # Some agents use one id for a message and for what belongs to it.
        if (
            kind == "text"
            and self.begun
            and self.chance.random() < 0.4
            and ("text", self.begun[-1][1]) not in self.begun
        ):
            new = self.begun[-1][1]
        self.open.append((kind, new))
        self.begun.append((kind, new))
        match kind:
            case "text":
                return [TextMessageStartEvent(message_id=new, role="assistant")]
            case "reasoning":
                start = ReasoningMessageStartEvent(message_id=new, role="reasoning")
                return [ReasoningStartEvent(message_id=new), start]
            case "call":
                parent = self.chance.choice([None, f"{self.name}-{max(0, number - 1)}", f"{self.name}-{number + 1}"])
                return [ToolCallStartEvent(tool_call_id=new, tool_call_name="clock", parent_message_id=parent)]
            case _:
                return [SubagentStartedEvent(subagent_run_id=new, name="helper")]

    def more(self, kind: str, one: str) -> list[BaseEvent]:
        delta = self.chance.choice(["a", "é ", "\U0001f600", "", "\n"])
        match kind:
            case "text":
                return [TextMessageContentEvent(message_id=one, delta=delta)]
            case "reasoning":
                return [ReasoningMessageContentEvent(message_id=one, delta=delta)]
            case "call":
                return [ToolCallArgsEvent(tool_call_id=one, delta=delta)]
            case _:
                return []

    def close(self, index: int) -> list[BaseEvent]:
        kind, one = self.open.pop(index)
        match kind:
            case "text":
                return [TextMessageEndEvent(message_id=one)]
            case "reasoning":
                return [ReasoningMessageEndEvent(message_id=one), ReasoningEndEvent(message_id=one)]
            case "call":
                self.unanswered.append(one)
                return [ToolCallEndEvent(tool_call_id=one)]
            case _:
                ends = [
                    SubagentFinishedEvent(subagent_run_id=one),
                    SubagentErrorEvent(subagent_run_id=one, message="no"),
                ]
                return [self.chance.choice(ends)]

    def result(self) -> BaseEvent:
        call = self.unanswered.pop(0)
        return ToolCallResultEvent(message_id=f"{call}-result", tool_call_id=call, content="12:00")

    def all_closed(self) -> list[BaseEvent]:
        events: list[BaseEvent] = []
        while self.open:
            events += self.close(len(self.open) - 1)
        while self.unanswered:
            events.append(self.result())
        return events


class Story:
    """A user and their agents, acting in one thread as chance has it; a snapshot is kept after every act."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.room = Room()
        self.thread_id = self.room.thread().pk
        self.other_id = self.room.thread("another").pk
        self.agents: list[Agent] = []
        self.runs: list[str] = []
        self.snapshots = [self.room.snapshot(self.thread_id)]

    def act(self) -> None:
        weights = {self.ask: 3, self.claim: 3, self.change: 2, self.cancel: 1}
        if self.agents:
            weights |= {self.say: 12, self.end: 2}
        try:
            self.chance.choices(list(weights), list(weights.values()))[0]()
        except Refusal:
            return
        self.snapshots.append(self.room.snapshot(self.thread_id))

    def ask(self) -> None:
        busy = self.chance.choice([IfBusy.REJECT, IfBusy.ENQUEUE, IfBusy.ENQUEUE, IfBusy.INTERRUPT, IfBusy.ROLLBACK])
        changes: dict[str, Any] = {"if_busy": busy}
        match self.chance.choice(["next", "next", "edit", "again", "elsewhere"]):
            case "edit" if self.messages:
                changes["parent_message_id"] = self.chance.choice(self.messages)
            case "again" if self.runs:
                changes |= {"retry_of": self.chance.choice(self.runs), "text": None}
            case "elsewhere":
                self.room.ask(self.other_id, "not here", if_busy=IfBusy.ENQUEUE)
                return
        started = self.room.ask(self.thread_id, **{"text": f"question {len(self.runs)}", **changes})
        self.runs.append(started["run_id"])

    def claim(self) -> None:
        claimed = self.room.claim()
        if claimed is not None:
            self.agents.append(Agent(claimed, len(self.runs), self.chance))

    def say(self) -> None:
        agent = self.chance.choice(self.agents)
        self.room.say(agent.claimed, *agent.next())

    def end(self) -> None:
        agent = self.agents.pop(self.chance.randrange(len(self.agents)))
        how = self.chance.choice(["succeeded", "cancelled", "timeout", "interrupted", "agent_error"])
        self.room.say(agent.claimed, *agent.all_closed(), ending=ending_of(agent.claimed, how))

    def change(self) -> None:
        leaf_id = self.chance.choice([None, *self.messages])
        title = self.chance.choice([None, "renamed"])
        self.room.conversation.change_thread(self.room.identity, self.thread_id, title=title, leaf_id=leaf_id)

    def cancel(self) -> None:
        if self.runs:
            self.room.conversation.cancel_run(self.room.identity, self.chance.choice(self.runs))

    @property
    def messages(self) -> list[str]:
        return [message["id"] for message in self.snapshots[-1]["messages"]]


def tell(chance: Random, acts: int) -> Story:
    story = Story(chance)
    for _ in range(acts):
        story.act()
    return story


def test_a_snapshot_and_the_events_after_it_make_every_later_snapshot(time_budget):
    for chance in time_budget("simulation").rounds():
        with transaction.atomic():
            story = tell(chance, 60)
            starts = chance.sample(range(len(story.snapshots)), 5)
            check_from(starts, story.snapshots, story.room.entries())
            transaction.set_rollback(True)  # the next story begins without anybody's runs


@pytest.mark.parametrize("number", range(4))
def test_that_holds_for_all_pairs_of_positions_of_a_story(number):
    story = tell(Random(number), 80)
    check_from(list(range(len(story.snapshots))), story.snapshots, story.room.entries())


def test_the_leaf_that_followed_answers_of_a_run_stays_there_when_that_run_has_ended():
    room = Room()
    thread_id = room.thread().pk
    room.ask(thread_id, "one")
    first = room.claim()
    room.say(first, *spoken("1", message_id="a"))
    asked = room.messages(thread_id)[0].message_id
    room.ask(thread_id, "edited", parent_message_id=asked, if_busy=IfBusy.ENQUEUE)  # open all the time
    room.conversation.change_thread(room.identity, ThreadId(thread_id), leaf_id="a")
    before = loaded(room.snapshot(thread_id))
    seq = room.snapshot(thread_id)["seq"]
    room.end(first, *spoken("2", message_id="b"))
    for entry in room.entries()[seq:]:
        before.apply(entry)
    assert room.snapshot(thread_id)["thread"]["leaf_id"] == before.leaf_id


def test_an_open_run_shows_its_text_so_far_and_a_call_without_result():
    room = Room()
    thread_id = room.thread().pk
    room.ask(thread_id)
    claimed = room.claim()
    room.say(claimed, *spoken("so ", "far", message_id="a")[:-1], *called("clock", "{}", "noon", "c")[:-1])
    snapshot = room.snapshot(thread_id)
    asked, answer = snapshot["messages"]
    assert (answer["text"], answer["complete"], answer["parent_id"]) == ("so far", False, asked["id"])
    assert answer["parts"][0]["result"] is None
    assert snapshot["runs"][0]["status"] == "running"
    assert snapshot["seq"] == room.entries()[-1]["seq"]


def test_a_snapshot_is_one_statement():
    room = Room()
    thread_id = room.thread().pk
    room.answer(thread_id)
    room.ask(thread_id)
    with CaptureQueriesContext(connection) as queries:
        read_snapshot(room.user_id, ThreadId(thread_id))
    assert len(queries) == 1


@pytest.mark.parametrize("thread_id", ["", "x", "a" * 10_240, "a\0b", "a\nb", "\ud800", "é"])
def test_an_id_that_cannot_be_one_is_not_found(thread_id):
    with pytest.raises(Refusal, match="not_found"):
        read_snapshot(Room().user_id, ThreadId(thread_id))


def test_another_users_thread_is_refused_as_an_unknown_one():
    ann, bob = Room(), Room()
    thread_id = ThreadId(ann.thread("secret").pk)
    with pytest.raises(Refusal) as foreign:
        read_snapshot(bob.user_id, thread_id)
    with pytest.raises(Refusal) as unknown:
        read_snapshot(bob.user_id, ThreadId("0" * 36))
    assert vars(foreign.value) == vars(unknown.value)


def test_a_stream_that_was_lost_gives_a_position_all_the_same():
    room = Room()
    thread_id = room.thread("kept").pk
    Stream.objects.filter(user_id=room.user_id).delete()
    assert room.snapshot(thread_id)["seq"] == 0
