import json

import pytest

from apps.agents.base import TokenCount
from apps.execution import lifecycle
from apps.execution.lifecycle import RunErrorCode
from apps.execution.states import ENDED

USAGE = TokenCount(3, 4)


def wire(event):
    return json.loads(event.model_dump_json(by_alias=True))


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("agent_error", "failed"),
        ("timeout", "timed_out"),
        ("interrupted", "interrupted"),
        ("limit_exceeded", "failed"),
        ("unavailable", "failed"),
    ],
)
def test_every_error_code_has_its_status(code, status):
    ending = lifecycle.failed(RunErrorCode(code), "It failed.", USAGE)
    assert (ending.status, ending.error_code) == (status, code)
    assert wire(ending.event)["code"] == code
    assert ending.status in ENDED
    assert ending.usage == {"input_tokens": 3, "output_tokens": 4}


def test_endings_tell_what_was_used():
    for ending in (
        lifecycle.succeeded("t", "r", USAGE),
        lifecycle.cancelled("t", "r", USAGE),
        lifecycle.interrupted(USAGE),
    ):
        assert wire(ending.event)["usage"] == [{"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}]


def test_a_message_in_an_error_is_bounded():
    assert len(lifecycle.failed(RunErrorCode.AGENT_ERROR, "x" * 5_000, USAGE).event.message) == 1_000


def test_a_place_is_told_with_the_message_at_admission_and_without_it_later():
    assert wire(lifecycle.queued("t", "r", 2, {"id": "m"}).event)["value"] == {"place": 2, "message": {"id": "m"}}
    assert wire(lifecycle.queued("t", "r", 1).event)["value"] == {"place": 1}
