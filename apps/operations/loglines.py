"""One line a record, whatever is in it: for people by default, as JSON for machines.

What users, agents, databases and libraries say reaches messages and tracebacks. A line break or an escape sequence in
it must not begin a record of its own, colour a terminal, or erase what stands before it: so every control character
is written as an escape, in both formats. Line breaks are kept in the format for people, for tracebacks need them, and
each line behind one is indented: a line that begins at the margin was begun by a record.

Ids are given with the record (`extra={"run_id": ...}`) or are those of the process; nothing is kept for the next one.
"""

import logging
import os
import re
from datetime import UTC, datetime
from typing import override

import orjson

# C0 but the tab, DEL, C1, the separators that some readers take for line breaks, and what turns the writing direction.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LONGEST = 16_384  # characters of a message or a traceback; a longer one keeps its beginning and its end
_INDENT = "\n    "
IDS = ("process_id", "run_id", "connection_id", "trace_id")


def escaped(text: str) -> str:
    """The text on one line, without a character that a terminal or a reader of lines obeys."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _bounded(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[:half]} ... {len(text) - _LONGEST} characters left out ... {text[-half:]}"


def _ids(record: logging.LogRecord) -> dict[str, str]:
    given = ((name, getattr(record, name, None)) for name in IDS)
    return {name: escaped(str(value)) for name, value in given if value is not None}


class _OneRecord(logging.Formatter):
    def trouble(self, record: logging.LogRecord) -> str:
        """The traceback and the stack of this record, as they are; empty where there are none."""
        parts = [self.formatException(record.exc_info)] if record.exc_info else []
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return _bounded("\n".join(parts))


class LineFormatter(_OneRecord):
    """For people: time, level, logger, message, ids; a traceback below, indented."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        time = self.formatTime(record)
        ids = "".join(f" {name}={value}" for name, value in _ids(record).items())
        first, *more = _bounded(record.getMessage()).split("\n")
        head = f"{time} {record.levelname} {record.name}: {escaped(first)}{ids}"
        if trouble := self.trouble(record):
            more += trouble.split("\n")
        return _INDENT.join([head, *map(escaped, more)])


class JsonFormatter(_OneRecord):
    """For machines: one JSON object with `time` (UTC), `level`, `logger`, `message`, `pid`, ids, and `error` if any."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, str | int] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": escaped(_bounded(record.getMessage())),
            "pid": record.process or os.getpid(),
            **_ids(record),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
        if trouble := self.trouble(record):
            line["traceback"] = "\n".join(map(escaped, trouble.split("\n")))
        return orjson.dumps(line).decode()
