"""Which parts of an agent's events a user may see: an allow-list, so that what nobody thought of stays inside. Pure.

Tool arguments and results are hidden unless the tool declares public fields; errors leave as code and reference,
which the executor sees to. Strings are made storable here too: NUL and lone surrogates become U+FFFD.
"""

from collections.abc import Mapping
from typing import Any

import orjson

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

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

# `rawEvent` is the provider's own event and `metadata` the agent's notes: both are internals.
_HIDDEN_FIELDS = frozenset({"rawEvent", "metadata"})


def visible_event(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """The part of an event, in its wire form, that its user may see; None when the whole type is hidden."""
    if event["type"] not in VISIBLE:
        return None
    return {key: value for key, value in event.items() if key not in _HIDDEN_FIELDS}


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
