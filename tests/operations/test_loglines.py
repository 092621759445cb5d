"""A log line says what happened; nobody who is quoted in it can make it say something else."""

import json
import logging
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.operations.loglines import JsonFormatter, LineFormatter
from tests.docs.pages import ROOT

FORGED = "hello\n2026-01-01 00:00:00,000 CRITICAL root: all is lost\r\x1b[2K\x1b[31mred\x9b31m\u2028\u202egnirts"
MARGIN = re.compile(r"^\d{4}-\d\d-\d\d", re.MULTILINE)
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")


def a_record(message, *args, error=None, **extra):
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("apps.test", logging.WARNING, __file__, 1, message, args, info)
    record.__dict__.update(extra)
    return record


def an_error(text):
    try:
        int(f"x{text}")
    except ValueError as error:
        return error


@given(st.text() | st.just(FORGED))
def test_no_text_begins_a_line_of_its_own_or_reaches_a_terminal(text):
    line = LineFormatter().format(a_record("said: %s", text, error=an_error(text), run_id=text))
    head, *rest = line.split("\n")
    assert MARGIN.match(head)
    assert all(below.startswith("    ") for below in rest)
    assert not OBEYED.search(line)


@given(st.text() | st.just(FORGED))
def test_every_record_is_one_json_object_on_one_line_whatever_is_in_it(text):
    line = JsonFormatter().format(a_record("said: %s", text, error=an_error(text), run_id=text))
    assert len(line.splitlines()) == 1
    read = json.loads(line)
    assert not OBEYED.search(line)
    assert read["level"] == "WARNING"
    assert read["logger"] == "apps.test"
    assert "\n" not in read["message"]
    assert read["error"] == "ValueError"


def test_a_line_carries_the_ids_that_were_given_with_the_record_and_no_others():
    read = json.loads(JsonFormatter().format(a_record("x", run_id="r1", connection_id="c1", user_name="anna")))
    assert (read["run_id"], read["connection_id"]) == ("r1", "c1")
    assert "anna" not in json.dumps(read)
    plain = json.loads(JsonFormatter().format(a_record("x")))
    assert set(plain) == {"time", "level", "logger", "message", "pid"}
    assert LineFormatter().format(a_record("x", run_id="r1")).endswith("WARNING apps.test: x run_id=r1")


@pytest.mark.parametrize("formatter", [LineFormatter(), JsonFormatter()])
def test_a_line_has_a_bound(formatter):
    line = formatter.format(a_record("%s", "x" * 1_000_000))
    assert len(line) < 20_000
    assert "characters left out" in line


@pytest.mark.parametrize("chosen", ["lines", "json", "xml"])
def test_the_format_is_chosen_by_the_environment_and_a_wrong_one_is_named(chosen):
    script = (
        "import django; django.setup(); import logging; logging.getLogger('a').warning('b\\nc', extra={'run_id': 7})"
    )
    environment = {"SECRET_KEY": "k" * 60, "DJANGO_SETTINGS_MODULE": "project.settings", "LOG_FORMAT": chosen}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    match chosen:
        case "lines":
            assert done.stderr.endswith("WARNING a: b run_id=7\n    c\n")
        case "json":
            assert json.loads(done.stderr)["message"] == "b\\u000ac"
        case _:
            assert "LOG_FORMAT is 'xml'; it takes lines or json" in done.stderr
