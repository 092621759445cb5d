"""The reducer of the page beside the one of the server: told by a snapshot or by events, it comes to the same."""

from typing import Any

import pytest
from ag_ui.core import (
    BaseEvent,
    CustomEvent,
    ReasoningMessageContentEvent,
    ReasoningMessageEndEvent,
    ReasoningMessageStartEvent,
    RunErrorEvent,
    RunFinishedEvent,
    RunFinishedSuccessOutcome,
    RunStartedEvent,
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
from playwright.sync_api import Page

from apps.chat.projection import ThreadView, moment
from apps.vocabulary import ThreadId
from tests.browser.conftest import open_chat

pytestmark = pytest.mark.browser

THREAD = "thread-1"

_IMPORT = """async () => {
  for (const name of ["turns", "store"]) {
    const address = [...document.querySelectorAll("link[rel=modulepreload]")]
      .map((link) => link.href).find((href) => href.includes(`/${name}.`));
    window[name] = await import(address);
  }
  window.look = (conversation) => [...conversation.turns.values()].map((turn) => ({
    run: turn.runId, status: turn.status, agent: turn.agent, error: turn.errorCode, prompt: turn.prompt,
    items: window.turns.itemsOf(turn).map(({ kind, id, text, complete, name, arguments: given, result, status }) =>
      ({ kind, id, text, complete, name, given, result, status })),
  }));
}"""

_REPLAY = """([snapshot, entries]) => {
  const conversation = window.turns.Conversation.fromSnapshot(snapshot);
  for (const entry of entries) conversation.apply(entry);
  return window.look(conversation);
}"""


@pytest.fixture
def workbench(tab: Page) -> Page:
    open_chat(tab)
    tab.evaluate(_IMPORT)
    return tab


def queued(run: str, message: str, text: str, agent: str = "assistant") -> CustomEvent:
    said = {"id": message, "role": "user", "content": text, "parentId": None, "afterRunId": None, "agent": agent}
    return CustomEvent(name="turnout.run.queued", value={"place": 1, "message": said | {"createdAt": moment(1)}})


def as_json(event: BaseEvent) -> Any:
    return event.model_dump(by_alias=True, mode="json")


def recorded() -> list[dict[str, Any]]:
    """Two runs side by side, with all that an answer can hold, a retry, and every kind of end."""
    steps: list[tuple[str, BaseEvent]] = [
        ("r1", queued("r1", "u1", "How?")),
        ("r1", RunStartedEvent(thread_id=THREAD, run_id="r1")),
        ("r1", ReasoningMessageStartEvent(message_id="m0", role="reasoning")),
        ("r1", ReasoningMessageContentEvent(message_id="m0", delta="Let me ")),
        ("r1", ReasoningMessageContentEvent(message_id="m0", delta="think.")),
        ("r1", ReasoningMessageEndEvent(message_id="m0")),
        ("r1", TextMessageStartEvent(message_id="m1", role="assistant")),
        ("r1", TextMessageContentEvent(message_id="m1", delta="First, ")),
        ("r2", queued("r2", "u2", "And?", agent="metronome")),
        ("r1", TextMessageContentEvent(message_id="m1", delta="a look.")),
        ("r1", TextMessageEndEvent(message_id="m1")),
        ("r1", ToolCallStartEvent(tool_call_id="t1", tool_call_name="search", parent_message_id="m1")),
        ("r1", ToolCallArgsEvent(tool_call_id="t1", delta='{"query":')),
        ("r1", ToolCallArgsEvent(tool_call_id="t1", delta='"x"}')),
        ("r1", ToolCallEndEvent(tool_call_id="t1")),
        ("r1", ToolCallResultEvent(message_id="x1", tool_call_id="t1", content="3 found")),
        ("r1", SubagentStartedEvent(subagent_run_id="s1", name="researcher")),
        ("r1", SubagentFinishedEvent(subagent_run_id="s1")),
        ("r1", SubagentStartedEvent(subagent_run_id="s2", name="critic")),
        ("r1", SubagentErrorEvent(subagent_run_id="s2", message="no")),
        ("r1", TextMessageStartEvent(message_id="m2", role="assistant")),
        ("r1", TextMessageContentEvent(message_id="m2", delta="Done.")),
        ("r1", TextMessageEndEvent(message_id="m2")),
        ("r1", RunFinishedEvent(thread_id=THREAD, run_id="r1", outcome=RunFinishedSuccessOutcome(type="success"))),
        ("r2", RunStartedEvent(thread_id=THREAD, run_id="r2")),
        ("r2", ToolCallStartEvent(tool_call_id="t2", tool_call_name="clock", parent_message_id="nobody")),
        ("r2", ToolCallResultEvent(message_id="x2", tool_call_id="t2", content="noon")),
        ("r2", TextMessageStartEvent(message_id="nobody", role="assistant")),
        ("r2", TextMessageContentEvent(message_id="nobody", delta="It is")),
        ("r2", TextMessageEndEvent(message_id="nobody")),
        ("r2", RunErrorEvent(message="The agent failed", code="agent_error")),
        ("r3", queued("r3", "u2", "And?", agent="metronome")),
        ("r3", RunStartedEvent(thread_id=THREAD, run_id="r3")),
        ("r3", RunErrorEvent(message="Too slow", code="timeout")),
    ]
    return [
        {
            "seq": n,
            "thread_id": THREAD,
            "run_id": run,
            "at": 1.0 + n,
            "event": event.model_dump(by_alias=True, mode="json"),
        }
        for n, (run, event) in enumerate(steps, start=1)
    ]


def snapshots(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The server's snapshot after 0, 1, 2 ... of the entries."""
    view = ThreadView(ThreadId(THREAD))
    found = [view.as_json()]
    for entry in entries:
        view.apply(entry)
        found.append(view.as_json())
    return found


def test_a_snapshot_and_the_events_after_it_are_the_same_as_any_later_snapshot(workbench: Page):
    entries = recorded()
    taken = snapshots(entries)
    shown = [workbench.evaluate(_REPLAY, [snapshot, []]) for snapshot in taken]
    for begin, snapshot in enumerate(taken):
        for end in range(begin, len(entries) + 1):
            assert workbench.evaluate(_REPLAY, [snapshot, entries[begin:end]]) == shown[end], (begin, end)


def test_a_frame_that_does_not_continue_is_a_gap_and_changes_nothing(workbench: Page):
    entries = recorded()
    outcome = workbench.evaluate(
        """([snapshot, entries]) => {
          const store = new window.store.Store();
          store.begin("p0", 0);
          store.loading("thread-1");
          store.loaded("thread-1", { ...snapshot, seq: 0 });
          store.receive(entries.slice(0, 5), "p5");
          const before = JSON.stringify(window.look(store.conversation("thread-1")));
          let name = "none";
          try { store.receive(entries.slice(6, 9), "p9"); } catch (problem) { name = problem.constructor.name; }
          const after = JSON.stringify(window.look(store.conversation("thread-1")));
          store.receive(entries.slice(2, 9), "p9");
          return [name, before === after, store.seq, store.position, window.look(store.conversation("thread-1"))];
        }""",
        [snapshots(entries)[0], entries],
    )
    assert outcome[:4] == ["Gap", True, 9, "p9"]
    assert outcome[4] == workbench.evaluate(_REPLAY, [snapshots(entries)[0], entries[:9]])


def test_events_are_held_back_while_a_snapshot_loads_and_counted_once(workbench: Page):
    entries = recorded()
    taken = snapshots(entries)
    for seq in range(5, 21):
        shown = workbench.evaluate(
            """([snapshot, entries, seq]) => {
              const store = new window.store.Store();
              store.begin("p0", 0);
              store.receive(entries.slice(0, 5), "p5");
              store.loading("thread-1");
              for (const entry of entries.slice(5, 15)) store.receive([entry], `p${entry.seq}`);
              store.loaded("thread-1", { ...snapshot, seq });
              for (const entry of entries.slice(15)) store.receive([entry], `p${entry.seq}`);
              return window.look(store.conversation("thread-1"));
            }""",
            [taken[seq], entries, seq],
        )
        assert shown == workbench.evaluate(_REPLAY, [taken[-1], []]), seq


def test_a_list_that_comes_late_does_not_undo_what_an_event_told(workbench: Page):
    titles = workbench.evaluate("""() => {
      const store = new window.store.Store();
      store.begin("p0", 0);
      const custom = (seq, name, value) => store.receive(
        [{ seq, thread_id: value.id, run_id: null, at: 1, event: { type: "CUSTOM", name, value } }], `p${seq}`);
      custom(1, "turnout.thread.created", { id: "a", title: "" });
      store.listing();
      custom(2, "turnout.thread.updated", { id: "a", title: "new" });
      custom(3, "turnout.thread.deleted", { id: "b" });
      store.listed([{ id: "a", title: "old" }, { id: "b", title: "gone" }, { id: "c", title: "third" }]);
      return store.threadList.map(({ title }) => title);
    }""")
    assert titles == ["third", "new"]
