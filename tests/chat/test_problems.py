"""Every refusal has a status, and a problem says what RFC 9457 asks for."""

import ast
import json
from pathlib import Path

import pytest

from apps.chat.problems import STATUS, refused
from apps.vocabulary import ErrorCode, Refusal

ROOT = Path(__file__).parents[2]


def test_every_error_code_has_a_status():
    assert set(STATUS) == set(ErrorCode)


@pytest.mark.parametrize(
    ("status", "codes"),
    [
        (400, {"bad_request", "unknown_command", "agent_unknown"}),
        (404, {"not_found"}),
        (409, {"id_reused", "thread_busy", "run_finished", "already_decided"}),
        (413, {"input_too_large"}),
        (429, {"queue_full", "too_many_runs", "rate_limited", "quota_exceeded"}),
        (500, {"internal"}),
        (503, {"unavailable"}),
    ],
)
def test_statuses_are_those_of_the_protocol(status, codes):
    assert {str(code) for code, mapped in STATUS.items() if mapped == status} == codes


@pytest.mark.parametrize("code", [code for code in ErrorCode if STATUS[code] == 429])
def test_a_limit_always_says_when_to_come_back(code):
    assert refused(Refusal(code, "no"))["Retry-After"] == "5"
    assert refused(Refusal(code, "no", {}, 0.2))["Retry-After"] == "1"


def test_details_are_passed_on():
    body = json.loads(refused(Refusal(ErrorCode.THREAD_BUSY, "busy", {"run_id": "r"})).content)
    assert body["details"] == {"run_id": "r"}


def refusals(*codes):
    """Every place of the code that refuses with one of these codes."""
    for path in sorted((ROOT / "apps").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "Refusal":
                continue
            if getattr(node.args[0], "attr", "") in codes:
                yield f"{path.name}:{node.lineno}", node


def test_every_refusal_by_a_bound_names_the_bound_and_when_to_try_again():
    by_bound = dict(refusals("QUEUE_FULL", "TOO_MANY_RUNS", "RATE_LIMITED", "QUOTA_EXCEEDED"))
    assert len(by_bound) >= 10
    lacking = [place for place, node in by_bound.items() if len(node.args) < 4 or ast.unparse(node.args[2]) == "{}"]
    assert lacking == []
