"""What one run has to say, on its way into the log: checked, redacted, coalesced, and never faster than the log.

A publisher lives as long as its run. `publish` returns when the event is accepted, and waits while the run has too
much that is not yet durable; so an agent that floods waits for the database and cannot fill the memory. `finish`
returns when the terminal event is durable.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ag_ui.core import BaseEvent

from apps.realtime.bridge import RunBridge
from apps.realtime.coalescing import DELTA_TYPES, WaitingDelta, encode_entry, piece_characters, split_delta
from apps.realtime.commit import Batch, Committed, Fenced, FrozenEvent, Outcome, Refused
from apps.realtime.constructs import TERMINAL, GrammarError, OpenConstructs
from apps.realtime.redaction import Disclosure, ToolRedaction, storable_event, storable_text, visible_event
from apps.realtime.secrets import RunSecrets
from apps.realtime.values import Ending, RunLease
from apps.vocabulary import RunId, UserId

_YIELD_EVERY = 32  # events


@dataclass(frozen=True, slots=True)
class PublisherLimits:
    """Bounds of one run. Sizes in bytes of JSON; `waiting_*` is what is accepted and not yet durable."""

    waiting_events: int = 256
    waiting_bytes: int = 262_144
    event_bytes: int = 65_536
    id_characters: int = 128
    run_events: int = 200_000
    run_bytes: int = 16_777_216


class EventRefused(Exception):  # noqa: N818 - an answer to the agent, which broke the grammar
    """The agent yielded an event that the log does not take; the message says which and why."""


class RunFenced(Exception):  # noqa: N818 - the run goes on, elsewhere
    """Another owner has the run, or it has ended: stop, and write nothing more."""


class EventBudgetExceeded(Exception):  # noqa: N818 - a limit, not a fault
    """The run has logged as many events or bytes as one run may."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    entry: str
    size: int
    event_type: str


class RunEventPublisher:
    """The only way for a run's events into the log. Used by one task at a time."""

    def __init__(
        self,
        lease: RunLease,
        bridge: RunBridge,
        limits: PublisherLimits,
        mark: Callable[["RunEventPublisher"], None],
        read_logged: Callable[[], Awaitable[Sequence[Mapping[str, Any]]]],
        tools: ToolRedaction,
        *,
        disclosure: Disclosure,
        prepare_end: Callable[[], Awaitable[object | None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lease = lease
        self._bridge = bridge
        self._limits = limits
        self._piece = piece_characters(limits.event_bytes)
        self._mark = mark
        self._read_logged = read_logged
        self._tools = tools
        self._disclosure = disclosure
        self._secrets = RunSecrets(disclosure.secrets)
        self._prepare_end = prepare_end
        self._prepared: object | None = None
        self._clock = clock
        self._owner = frozenset({lease.user_id})
        self._logged = lease.logged
        self._constructs = OpenConstructs()
        self._waiting: deque[_Waiting | WaitingDelta] = deque()
        self._waiting_bytes = 0
        self._frozen: Batch | None = None
        self._ending: Ending | None = None
        self._changed = asyncio.Event()
        self._failure: Exception | None = None
        self._run_events = 0
        self._run_bytes = 0
        self.cancel_requested = asyncio.Event()
        self.hidden_events = 0
        self._published = 0

    def __repr__(self) -> str:
        return f"<RunEventPublisher {self.run_id} logged={self._logged} waiting={len(self._waiting)}>"

    @property
    def run_id(self) -> RunId:
        return self._lease.run_id

    @property
    def user_id(self) -> UserId:
        return self._lease.user_id

    # -- for the run

    async def publish(self, event: BaseEvent) -> None:
        """Accept one event that is not terminal; waits while the run's buffer is full.

        A delta that is larger than an event is accepted piece by piece, each of which waits for its room.
        Raises EventRefused, EventBudgetExceeded, RunFenced.
        """
        await self._wait_for_room()
        self._check_budget()
        delta = getattr(event, "delta", None)
        if event.type.value in DELTA_TYPES and isinstance(delta, str):
            await self._accept_delta(event, delta)
        else:
            self._accept(event.model_dump(mode="json", by_alias=True))
        self._mark(self)
        self._published += 1
        if self._published % _YIELD_EVERY == 0:
            await asyncio.sleep(0)  # an agent that never waits must not keep the loop from everybody else

    async def finish(self, ending: Ending) -> None:
        """Close what is open, append the terminal event, and return when all is durable. Raises RunFenced.

        Room for these events is held back: they are accepted however much the run has logged. An EventRefused here
        means that the database does not take the terminal transaction.
        """
        if isinstance(self._failure, RunFenced):
            raise self._failure
        if self._failure is not None:
            await self._forget_what_was_refused()
        for construct_id in self._secrets.open_ids():
            self._show_rest(construct_id)
        if not _leaves_calls_open(ending.event):
            for event in self._constructs.closing_events(f"The run ended before this was answered ({ending.status})."):
                self._queue(event.model_dump(mode="json", by_alias=True))
        # What ends with the run is read now, beside the writer, for which all users wait.
        self._prepared = await self._prepare_end()
        self._queue(self._secrets.whole(ending.event.model_dump(mode="json", by_alias=True)))
        self._ending = ending
        self._mark(self)
        while self._waiting or self._frozen is not None:
            await self._next_change()
        if self._failure is not None:
            raise self._failure

    # -- for the group commit

    def freeze(self, max_events: int, max_bytes: int) -> Batch | None:
        """The next batch, which is never changed again; the same one until its outcome is known."""
        if self._frozen is not None:
            return None
        events: list[FrozenEvent] = []
        size = 0
        while self._waiting and len(events) < max_events and (not events or size < max_bytes):
            event = self._freeze_event(self._waiting.popleft())
            events.append(event)
            size += event.size
        if not events:
            return None
        ending = self._ending if not self._waiting else None
        self._frozen = Batch(self._lease, self._logged, tuple(events), ending, self._prepared)
        return self._frozen

    def committed(self, batch: Batch, outcome: Outcome) -> None:
        """Take the outcome of the batch that was frozen."""
        assert batch is self._frozen
        self._frozen = None
        self._waiting_bytes -= sum(event.size for event in batch.events)
        match outcome:
            case Committed(cancel_requested):
                self._logged += len(batch.events)
                if cancel_requested:
                    self.cancel_requested.set()
            case Fenced():
                self._fail(RunFenced(f"run {self.run_id} belongs to another owner or has ended"))
            case Refused(error):
                self._fail(EventRefused(f"the database refused the run's events: {type(error).__name__}"))
        if self._waiting:
            self._mark(self)
        self._changed.set()

    def refused(self, error: Exception) -> None:
        """What waited, or was frozen, cannot be written: the run must end in another way."""
        self._frozen = None
        self._fail(EventRefused(f"the run's events cannot be written: {type(error).__name__}"))
        self._changed.set()

    # -- inside

    def _check_budget(self) -> None:
        if self._run_events >= self._limits.run_events or self._run_bytes >= self._limits.run_bytes:
            raise EventBudgetExceeded(
                f"a run may log {self._limits.run_events} events and {self._limits.run_bytes} bytes"
            )

    async def _accept_delta(self, event: BaseEvent, delta: str) -> None:
        event_type = event.type.value
        fields: Mapping[str, Any] = event.__dict__
        construct_id = storable_text(fields.get("message_id") or fields.get("tool_call_id") or "")
        subagent = fields.get("subagent_run_id")
        self._check_ids({"messageId or toolCallId": construct_id, "subagentRunId": subagent})
        try:
            self._constructs.see_delta(event_type, construct_id)
        except GrammarError as error:
            raise EventRefused(str(error)) from error
        if event_type == "TOOL_CALL_ARGS":
            self._tools.argued(construct_id, delta)
            self._run_events += 1
        else:
            if not self._disclosure.shows(event_type):
                self.hidden_events += 1
                self._run_events += 1
                return
            subagent = storable_text(subagent) if subagent and self._disclosure.subagents else None
            shown = self._secrets.feed(event_type, construct_id, subagent, storable_text(delta))
            if delta and not shown:
                self._run_events += 1  # what is held back is paid for as well
                return
            for number, piece in enumerate(split_delta(shown, self._piece)):
                if number:
                    self._mark(self)
                    await self._wait_for_room()
                    self._check_budget()
                self._queue_piece(event_type, construct_id, subagent, piece)

    def _show_rest(self, construct_id: str) -> None:
        """What was held back of a message that ends, for fear that it became a secret."""
        if (rest := self._secrets.ended(construct_id)) is not None:
            text, event_type, subagent = rest
            self._queue_piece(event_type, construct_id, subagent, text)

    def _queue_piece(self, event_type: str, construct_id: str, subagent: str | None, piece: str) -> None:
        last = self._waiting[-1] if self._waiting else None
        if not isinstance(last, WaitingDelta) or not last.takes(
            event_type, construct_id, subagent, len(piece), self._piece
        ):
            last = WaitingDelta(event_type, construct_id, subagent, self._clock())
            self._waiting.append(last)
            self._run_events += 1
        elif not piece:
            self._run_events += 1  # what says nothing is paid for as well
        size = last.add(piece)
        self._run_bytes += size
        self._waiting_bytes += size

    def _check_ids(self, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items():
            if isinstance(value, str) and len(value) > self._limits.id_characters:
                raise EventRefused(
                    f"{name} has {len(value)} characters; an id has at most {self._limits.id_characters}"
                )

    def _accept(self, event: Mapping[str, Any]) -> None:
        """Take an event of the agent's."""
        event_type = event["type"]
        if event_type in TERMINAL:
            raise EventRefused(f"{event_type} ends a run; an agent ends by returning or raising")
        event = storable_event(event)
        self._check_ids({name: value for name, value in event.items() if name.endswith("Id")})
        try:
            self._constructs.see(event)
        except GrammarError as error:
            raise EventRefused(str(error)) from error
        match event_type:
            case "TOOL_CALL_START":
                self._tools.started(event["toolCallId"], event["toolCallName"])
            case "TEXT_MESSAGE_END" | "REASONING_MESSAGE_END":
                self._show_rest(event["messageId"])
            case "TOOL_CALL_END":
                if (arguments := self._tools.ended(event["toolCallId"])) is not None:
                    for piece in split_delta(self._secrets.text(arguments), self._piece):
                        self._queue_piece("TOOL_CALL_ARGS", event["toolCallId"], event.get("subagentRunId"), piece)
            case "TOOL_CALL_RESULT":
                event = self._tools.result(event)
        # What begins the run holds the user's own words, which are theirs.
        self._queue(event if event_type == "RUN_STARTED" else self._secrets.whole(event))

    def _queue(self, event: Mapping[str, Any]) -> None:
        event_type = event["type"]
        visible = visible_event(event, self._disclosure)
        if visible is None:
            self.hidden_events += 1
            self._run_events += 1  # what nobody sees is paid for as well
            return
        entry = encode_entry(self._lease.thread_id, self.run_id, self._clock(), storable_event(visible))
        size = len(entry.encode())
        if size > self._limits.event_bytes and event_type != "RUN_STARTED":
            raise EventRefused(f"{event_type} has {size} bytes; an event has at most {self._limits.event_bytes}")
        self._waiting.append(_Waiting(entry, size, event_type))
        self._waiting_bytes += size
        self._run_events += 1
        self._run_bytes += size

    def _freeze_event(self, waiting: "_Waiting | WaitingDelta") -> FrozenEvent:
        if isinstance(waiting, _Waiting):
            entry, size, event_type = waiting.entry, waiting.size, waiting.event_type
        else:
            entry = encode_entry(self._lease.thread_id, self.run_id, waiting.at, waiting.event())
            size = len(entry.encode())
            event_type = waiting.event_type
            self._waiting_bytes += size - waiting.size
            self._run_bytes += size - waiting.size
        recipients = self._owner if event_type in TERMINAL else self._bridge.recipients(event_type)
        return FrozenEvent(entry, size, None if recipients == self._owner else recipients)

    async def _wait_for_room(self) -> None:
        while True:
            if self._failure is not None:
                raise self._failure
            frozen = len(self._frozen.events) if self._frozen is not None else 0
            if (
                len(self._waiting) + frozen < self._limits.waiting_events
                and self._waiting_bytes < self._limits.waiting_bytes
            ):
                return
            await self._next_change()

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _forget_what_was_refused(self) -> None:
        # What is open is what the log says is open: the refused events were seen by the constructs, but by no tab.
        self._constructs = OpenConstructs()
        self._secrets.forget()
        for event in await self._read_logged():
            self._constructs.follow(event)
        self._failure = None

    def _fail(self, failure: Exception) -> None:
        self._failure = failure
        self._waiting.clear()
        self._waiting_bytes = 0


def _leaves_calls_open(event: BaseEvent) -> bool:
    outcome = getattr(event, "outcome", None)
    return outcome is not None and outcome.type == "interrupt"
