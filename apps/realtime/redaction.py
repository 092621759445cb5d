"""Which parts of an agent's events a user may see: an allow-list, so that what nobody thought of stays inside. Pure.

Tool arguments and results are hidden unless the tool declares public fields; errors leave as code and reference,
which the executor sees to. Strings are made storable here too: NUL and lone surrogates become U+FFFD.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
HELD_CHARACTERS = 32_768  # of one call's arguments; longer ones are not shown
RESULT = "result"  # the name under which a tool declares its result public

# Everything else that an agent emits (RAW, state, activities, encrypted reasoning) is not for a tab.
VISIBLE = frozenset(
    {
        "RUN_STARTED",
        "RUN_FINISHED",
        "RUN_ERROR",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END",
        "REASONING_START",
        "REASONING_MESSAGE_START",
        "REASONING_MESSAGE_CONTENT",
        "REASONING_MESSAGE_END",
        "REASONING_END",
        "TOOL_CALL_START",
        "TOOL_CALL_ARGS",
        "TOOL_CALL_END",
        "TOOL_CALL_RESULT",
        "SUBAGENT_STARTED",
        "SUBAGENT_FINISHED",
        "SUBAGENT_ERROR",
        "STEP_STARTED",
        "STEP_FINISHED",
        "CUSTOM",
    }
)


@dataclass(frozen=True, slots=True)
class Disclosure:
    """What of an agent's inside its user may see besides. `secrets`: texts that nobody may, as they are."""

    reasoning: bool = True
    subagents: bool = True
    secrets: tuple[str, ...] = ()

    def shows(self, event_type: str) -> bool:
        """Whether events of this type are for a tab."""
        if event_type.startswith("REASONING_"):
            return self.reasoning and event_type in VISIBLE
        if event_type.startswith(("SUBAGENT_", "STEP_")):
            return self.subagents and event_type in VISIBLE
        return event_type in VISIBLE


# `rawEvent` is the provider's own event and `metadata` the agent's notes: both are internals.
_HIDDEN_FIELDS = frozenset({"rawEvent", "metadata"})
EVERYTHING = Disclosure()


def visible_event(event: Mapping[str, Any], disclosure: Disclosure = EVERYTHING) -> dict[str, Any] | None:
    """The part of an event, in its wire form, that its user may see; None when the whole type is hidden."""
    if not disclosure.shows(event["type"]):
        return None
    hidden = _HIDDEN_FIELDS if disclosure.subagents else _HIDDEN_FIELDS | {"subagentRunId"}
    return {key: value for key, value in event.items() if key not in hidden}


def storable_text(text: str) -> str:
    """`text` with NUL and lone surrogates replaced by U+FFFD; the same object when there are none."""
    if "\0" in text:
        text = text.replace("\0", REPLACEMENT)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def storable_event(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """`event` with every string made storable; the same object when all are."""
    try:
        if b"\\u0000" not in orjson.dumps(event):
            return event
    except TypeError:
        pass  # a lone surrogate: orjson says "str is not valid UTF-8" and refuses the whole document
    cleaned = _clean(event)
    assert isinstance(cleaned, dict)
    return cleaned


def _clean(value: Any) -> Any:
    match value:
        case str():
            return storable_text(value)
        case Mapping():
            return {storable_text(key): _clean(item) for key, item in value.items()}
        case list() | tuple():
            return [_clean(item) for item in value]
        case _:
            return value


@dataclass(slots=True)
class _HeldArguments:
    """Pieces of one call's arguments; of those that are too long to be shown only the length is kept."""

    pieces: list[str] = field(default_factory=list)
    characters: int = 0

    def add(self, piece: str) -> None:
        self.characters += len(piece)
        if self.characters <= HELD_CHARACTERS:
            self.pieces.append(piece)
        else:
            self.pieces.clear()


class ToolRedaction:
    """What a user sees of one run's tool calls: only the fields that the tool declares public.

    `public_fields` names, by tool, the arguments that may be shown, and RESULT where the result may. Arguments stream
    as pieces of JSON, of which nothing can be judged before the last; so they are held back until the call ends, and
    leave as one piece. A tool that nobody declared shows that it was called, and no more.
    """

    def __init__(self, public_fields: Mapping[str, Collection[str]]) -> None:
        self._public_fields = public_fields
        self._tool_of: dict[str, str] = {}
        self._held: dict[str, _HeldArguments] = {}

    def started(self, call_id: str, tool: str) -> None:
        """A call begins."""
        self._tool_of[call_id] = tool

    def argued(self, call_id: str, piece: str) -> None:
        """Hold a piece of the arguments back, if any of them may be shown and the whole can still be an event."""
        if self._public_arguments(call_id):
            self._held.setdefault(call_id, _HeldArguments()).add(piece)

    def ended(self, call_id: str) -> str | None:
        """The arguments that may be shown, as JSON text; None where there are none."""
        held = self._held.pop(call_id, _HeldArguments())
        public = self._public_arguments(call_id)
        if held.characters > HELD_CHARACTERS:
            return None
        try:
            arguments = orjson.loads("".join(held.pieces))
        except orjson.JSONDecodeError:
            return None
        if not isinstance(arguments, dict):
            return None
        shown = {name: value for name, value in arguments.items() if name in public}
        return orjson.dumps(shown).decode() if shown else None

    def result(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The result as it may be shown: empty unless the tool declares it public."""
        tool = self._tool_of.pop(event["toolCallId"], "")
        shown = RESULT in self._public_fields.get(tool, ())
        return dict(event) if shown else {**event, "content": ""}

    def _public_arguments(self, call_id: str) -> frozenset[str]:
        return frozenset(self._public_fields.get(self._tool_of.get(call_id, ""), ())) - {RESULT}
