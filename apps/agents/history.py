"""A history that a provider accepts. Pure.

Providers refuse a conversation in which a tool call has no result, or a result no call. Both happen: a run was cut
between the two, a result was too old to be kept, the user deleted a message. One such pair would fail every later
question of the thread.
"""

from collections.abc import Iterator, Sequence
from itertools import takewhile

from apps.agents.base import HistoryMessage
from apps.vocabulary import MessageId, new_id

NO_RESULT = "The result of this call is not known."


def paired(messages: Sequence[HistoryMessage]) -> list[HistoryMessage]:
    """The messages, each tool call followed by exactly one result, in the order of the calls; orphans left out."""
    return list(_paired(messages))


def _paired(messages: Sequence[HistoryMessage]) -> Iterator[HistoryMessage]:
    for index, message in enumerate(messages):
        if message.role == "user":
            yield message
        elif message.role == "assistant" and (message.text or message.tool_calls):
            yield message
            following = takewhile(lambda later: later.role == "tool", messages[index + 1 :])
            results = {result.tool_call_id: result for result in following}
            for call in message.tool_calls:
                yield results.get(call["id"]) or _unknown(call["id"])


def _unknown(tool_call_id: str) -> HistoryMessage:
    return HistoryMessage("tool", NO_RESULT, MessageId(new_id()), tool_call_id=tool_call_id)
