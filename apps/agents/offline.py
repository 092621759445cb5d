"""What `assistant` answers where no model is configured: what it can really do, and how to configure a model.

It pretends nothing. Each answer comes from a tool, whose call is shown, or says that it has none.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
from ag_ui.core import BaseEvent

from apps.agents.base import AgentContext, AgentInput
from apps.agents.markdown import code, escape
from apps.agents.questions import (
    Calculation,
    DayQuestion,
    OtherQuestion,
    Question,
    RenameRequest,
    ThreadQuestion,
    TimeQuestion,
    understand,
)
from apps.agents.resuming import Resumption
from apps.agents.streaming import ToolUse, closing, say
from apps.vocabulary import new_id

_FOOTNOTE = "*Answered offline: this server has no model configured.*"
_EXAMPLES = (
    ("calculator", "**arithmetic**, for example `12 * (3 + 4)` or `20% of 65`"),
    ("clock", "**dates and time**, for example `what day is 2030-01-01?` or `days until 2030-01-01`"),
    ("search_threads", "**your own threads**, for example `find my threads about invoices`"),
    ("rename_thread", "**this thread's name**, when you say yes: `rename this thread to Invoices`"),
)
_HOW_TO_CONFIGURE = """\
To answer anything else I need a language model. Whoever runs this server installs the extra `models` and sets

- `TURNOUT_MODEL`, for example `openai:gpt-5-mini`
- `TURNOUT_MODEL_API_KEY`, the key for that model's provider
- `TURNOUT_MODEL_BASE_URL`, only for another server that speaks OpenAI's protocol"""


async def offline_answer(context: AgentContext, task: AgentInput) -> AsyncIterator[BaseEvent]:
    """Answer with tools alone."""
    context.usage.add(input_tokens=len(task.text.split()))
    for decision in task.resume:
        resumption = Resumption(decision)
        async with closing(resumption.events(context.tools)) as events:
            async for event in events:
                yield event
        async with closing(say(context, f"{_outcome(resumption)}\n\n{_FOOTNOTE}")) as events:
            async for event in events:
                yield event
        return
    question = understand(task.text)
    request = _tool_request(question)
    if request is None or request[0] not in {tool.name for tool in context.tools.declarations}:
        text = _help(context, task)
    else:
        name, arguments = request
        use = ToolUse(new_id(), name, orjson.dumps(arguments).decode())
        async with closing(use.events(context.tools)) as events:
            async for event in events:
                yield event
        answer = f"I could not do that: {escape(use.result)}." if use.refused else _answer(question, use.result)
        text = f"{answer}\n\n{_FOOTNOTE}"
    async with closing(say(context, text)) as events:
        async for event in events:
            yield event


def _tool_request(question: Question) -> tuple[str, Mapping[str, Any]] | None:
    match question:
        case Calculation(expression):
            return "calculator", {"expression": expression}
        case TimeQuestion(timezone):
            return "clock", {"timezone": timezone}
        case DayQuestion(day, shift_days, until, until_next):
            asked = {"day": day, "shift_days": shift_days, "until": until, "until_next": until_next}
            return "clock", {name: value for name, value in asked.items() if value}
        case ThreadQuestion(query):
            return "search_threads", {"query": query}
        case RenameRequest(title):
            return "rename_thread", {"title": title}
        case OtherQuestion():
            return None


def _answer(question: Question, result: str) -> str:
    match question:
        case Calculation(expression):
            relation, value = ("≈", result[2:]) if result.startswith("≈ ") else ("=", result)
            return f"{code(expression)} {relation} **{value}**"
        case ThreadQuestion(query):
            return _threads(query, orjson.loads(result))
        case TimeQuestion():
            clock = orjson.loads(result)
            return f"It is **{clock['now']}** in {escape(clock['timezone'])}, a {clock['weekday']}."
        case DayQuestion():
            return _day(question, orjson.loads(result))
        case RenameRequest() | OtherQuestion():
            raise AssertionError("a question without a tool has no result, and a change waits for its user's word")


def _outcome(resumption: Resumption) -> str:
    if not resumption.decision.approved:
        return "Nothing was changed."
    return escape(resumption.result) if resumption.done else f"I could not do that: {escape(resumption.result)}."


def _day(question: DayQuestion, clock: Mapping[str, Any]) -> str:
    if question.until is None and not question.until_next:
        subject = "Today" if question.day is None and question.shift_days == 0 else "That day"
        return f"{subject} is **{clock['weekday']}, {clock['day']}**."
    days = clock["days_until"]
    count = f"**{abs(days)} day{'' if abs(days) == 1 else 's'}**"
    if question.day is None:
        return f"{clock['until']} {'is' if days >= 0 else 'was'} {count} {'away' if days >= 0 else 'ago'}."
    return f"From {clock['day']} to {clock['until']} it is {count}{' back' if days < 0 else ''}."


def _threads(query: str, hits: list[Mapping[str, str]]) -> str:
    if not hits:
        return f"None of your threads mentions {code(query)}."
    lines = [f"Your threads that mention {code(query)}:", ""]
    lines += [f"- **{escape(hit['title']) or 'Untitled'}**: {escape(hit['excerpt'])}" for hit in hits]
    return "\n".join(lines)


def _help(context: AgentContext, task: AgentInput) -> str:
    available = {tool.name for tool in context.tools.declarations}
    can_do = [f"- {example}" for name, example in _EXAMPLES if name in available]
    parts = ["This server has **no model configured**, so I cannot answer that."]
    if can_do:
        parts.append("What I can do by myself:\n\n" + "\n".join(can_do))
    if task.attachments:
        parts.append("I cannot read attachments.")
    parts.append(_HOW_TO_CONFIGURE)
    return "\n\n".join(parts)
