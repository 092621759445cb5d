"""What a question is about, as far as a few honest rules can tell. Pure.

A rule must fit the whole question. "What is the time?" is about the clock and "what is the time complexity of
quicksort?" is not, and a wrong answer is worse than none.
"""

import re
from dataclasses import dataclass
from datetime import date

from apps.agents.arithmetic import MAX_CHARACTERS, NAMES

MAX_QUERY_CHARACTERS = 200
MAX_TITLE_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Calculation:
    """Something to calculate."""

    expression: str


@dataclass(frozen=True, slots=True)
class TimeQuestion:
    """The time now."""

    timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class DayQuestion:
    """A day: `day` or today, shifted. With `until`, the days from it to there; `until_next` is MM-DD, of any year."""

    day: date | None = None
    shift_days: int = 0
    until: date | None = None
    until_next: str = ""


@dataclass(frozen=True, slots=True)
class ThreadQuestion:
    """Something in the user's own threads."""

    query: str


@dataclass(frozen=True, slots=True)
class RenameRequest:
    """A new name for the thread that is talked in."""

    title: str


@dataclass(frozen=True, slots=True)
class OtherQuestion:
    """Anything else."""


Question = Calculation | TimeQuestion | DayQuestion | ThreadQuestion | RenameRequest | OtherQuestion

_PLEASE = re.compile(r"(?:please|hi|hello|hey|can you|could you|tell me)[ ,]+", re.IGNORECASE)
_DAY = r"(\d{4}-\d{2}-\d{2})"
_WHAT = r"(?:what(?:'s| is| was| will be)?|which) "

_TIME = re.compile(
    r"(?:(?:what(?:'s| is) )?(?:the )?(?:current )?time(?: now| right now| is it)?|what time is it(?: now)?|now)"
    r"(?: in (?P<zone>[\w+/-][\w+/ -]{0,63}))?",
    re.IGNORECASE | re.ASCII,
)
_TODAY = re.compile(
    rf"(?:{_WHAT})?(?:the )?(?:(?:current )?(?:date|day|weekday)(?: is it)?(?: (?:of )?(?:today|now))?|today(?:'s)? ?"
    r"(?:date|day)?)",
    re.IGNORECASE,
)
_NEAR_DAY = re.compile(
    rf"(?:{_WHAT})?(?:the )?(?:(?:date|day|weekday) )?(?:is |was |will it be |was it )?(?:it )?(tomorrow|yesterday)",
    re.IGNORECASE,
)
_SHIFTED = re.compile(
    rf"(?:{_WHAT})?(?:the )?(?:(?:date|day|weekday) )?(?:is |was |will it be |was it )?(?:it )?"
    r"(?:in (\d{1,6}) (day|week)s?|(\d{1,6}) (day|week)s? ago)",
    re.IGNORECASE | re.ASCII,
)
_WEEKDAY = re.compile(
    rf"(?:{_WHAT})?(?:the )?(?:(?:day|weekday)(?: of the week)? )?(?:is |was |will be )?(?:on |of )?{_DAY}",
    re.IGNORECASE | re.ASCII,
)
_UNTIL = re.compile(
    rf"(?:how (?:many days|long)(?: is it)? |days )?(?:until|till|to|since) {_DAY}", re.IGNORECASE | re.ASCII
)
_UNTIL_NEXT = re.compile(
    r"(?:how (?:many days|long)(?: is it)? |days )?(?:until|till|to) (?:the )?(?:next )?(?P<name>[a-z' ]{4,20})",
    re.IGNORECASE,
)
# Days that stand in every year; those that move with the moon do not.
_NAMED_DAYS = {
    "christmas": "12-25",
    "christmas day": "12-25",
    "christmas eve": "12-24",
    "halloween": "10-31",
    "new year": "01-01",
    "new year's": "01-01",
    "new year's day": "01-01",
    "new year's eve": "12-31",
    "valentine's day": "02-14",
}
_BETWEEN = re.compile(
    rf"(?:how many )?days (?:are )?(?:there )?(?:between|from) {_DAY} (?:and|to|until) {_DAY}", re.IGNORECASE | re.ASCII
)
_THREADS = r"(?:threads?|chats?|conversations?|messages?|history)"
_SEARCH = re.compile(
    rf"(?:(?:search|look)(?: (?:in|through))?(?: (?:my|all))?(?: {_THREADS})?(?: for| about)|search"
    rf"|find(?: (?:my|all|the))?(?: {_THREADS})?(?: about| on| with| for)?"
    r"|(?:what|where|when) did i (?:say|ask|write|mention|talk)(?: about| for)?"
    rf"|(?:(?:which|what|show|list|are there|do i have) )?(?:of )?(?:me )?(?:any )?(?:my )?{_THREADS}(?: are)?"
    r"(?: about| on| with| mention| mentioning)) (?P<query>.+)",
    re.IGNORECASE,
)

_RENAME = re.compile(
    r"(?:re)?(?:name|title|call) (?:this|the|my)? ?(?:thread|chat|conversation)(?: to| as|:)? (?P<title>.+)",
    re.IGNORECASE,
)

_CALCULATE = re.compile(r"(?:what(?:'s| is)|how much is|calculate|compute|evaluate|solve|work out) ", re.IGNORECASE)
_SPOKEN = (
    (re.compile(r"(\d(?:[\d.]*\d)?) ?% of ", re.IGNORECASE | re.ASCII), r"\1 / 100 * "),
    (re.compile(r"(?:the )?square root of (\d+(?:\.\d+)?|\([^()]*\))", re.IGNORECASE | re.ASCII), r"sqrt(\1)"),
    (re.compile(r"\bplus\b", re.IGNORECASE), "+"),
    (re.compile(r"\bminus\b", re.IGNORECASE), "-"),
    (re.compile(r"\btimes\b|\bmultiplied by\b|(?<=\d) ?x ?(?=\d)", re.IGNORECASE), "*"),
    (re.compile(r"\bdivided by\b|\bover\b", re.IGNORECASE), "/"),
    (re.compile(r"\bto the power of\b", re.IGNORECASE), "**"),
    (re.compile(r"\bsquared\b", re.IGNORECASE), "** 2"),
    (re.compile(r"\bcubed\b", re.IGNORECASE), "** 3"),
)
_ARITHMETIC = re.compile(r"[-\d.+*/%^×÷·−(),_ a-z]+", re.IGNORECASE)  # noqa: RUF001 - signs that people paste
_LETTERS = re.compile(r"[a-z]+", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_DATE = re.compile(_DAY, re.ASCII)


def understand(text: str) -> Question:
    """What `text` asks. OtherQuestion where no rule fits the whole of it."""
    question = " ".join(text[: MAX_CHARACTERS + 1].replace("\u2019", "'").split())
    if len(question) > MAX_CHARACTERS:
        return OtherQuestion()
    while (polite := _PLEASE.match(question)) is not None:
        question = question[polite.end() :]
    question = question.rstrip(" ?!.=")
    return _day(question) or _calculation(question) or _rename(question) or _threads(question) or OtherQuestion()


def _day(question: str) -> Question | None:
    try:
        return _day_or_time(question)
    except ValueError:  # 2026-02-30
        return None


def _day_or_time(question: str) -> Question | None:
    found: Question | None = None
    if match := _TIME.fullmatch(question):
        found = TimeQuestion(match["zone"] or "UTC")
    elif _TODAY.fullmatch(question):
        found = DayQuestion()
    elif match := _NEAR_DAY.fullmatch(question):
        found = DayQuestion(shift_days=1 if match[1].lower() == "tomorrow" else -1)
    elif match := _SHIFTED.fullmatch(question):
        ahead, ahead_unit, ago, ago_unit = match.groups()
        days = int(ahead or ago) * (7 if (ahead_unit or ago_unit).lower() == "week" else 1)
        found = DayQuestion(shift_days=days if ahead else -days)
    elif match := _BETWEEN.fullmatch(question):
        found = DayQuestion(day=date.fromisoformat(match[1]), until=date.fromisoformat(match[2]))
    elif match := _UNTIL.fullmatch(question):
        found = DayQuestion(until=date.fromisoformat(match[1]))
    elif (match := _UNTIL_NEXT.fullmatch(question)) and (named := _NAMED_DAYS.get(match["name"].lower())):
        found = DayQuestion(until_next=named)
    elif match := _WEEKDAY.fullmatch(question):
        found = DayQuestion(day=date.fromisoformat(match[1]))
    return found


def _calculation(question: str) -> Calculation | None:
    lead = _CALCULATE.match(question)
    expression = question[lead.end() :] if lead else question
    for spoken, sign in _SPOKEN:
        expression = spoken.sub(sign, expression)
    names = {name.lower() for name in _LETTERS.findall(expression)}
    if not _ARITHMETIC.fullmatch(expression) or not names <= NAMES or _DATE.search(expression):
        return None
    if not names:
        expression = _THOUSANDS.sub("", expression)
    # A number alone, or a name alone, is no question.
    has_digit = any(character.isdecimal() for character in expression)
    has_operator = re.search(r"[\d)] *[-+*/%^×÷·−]|[a-z]\(", expression) is not None  # noqa: RUF001 - as above
    return Calculation(expression) if has_digit and (has_operator or (lead and names)) else None


def _rename(question: str) -> RenameRequest | None:
    match = _RENAME.fullmatch(question)
    title = "" if match is None else match["title"].strip(" \"'“”")
    return RenameRequest(title[:MAX_TITLE_CHARACTERS]) if title else None


def _threads(question: str) -> ThreadQuestion | None:
    match = _SEARCH.fullmatch(question)
    if match is None:
        return None
    query = match["query"].strip(" \"'“”")
    return ThreadQuestion(query[:MAX_QUERY_CHARACTERS]) if query else None
