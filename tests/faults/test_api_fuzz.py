"""Every call of the API's own document, filled in at random by schemathesis: it answers as the document says."""

from collections.abc import Callable

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from tests.budget import Budget
from tests.serving import ServerProcess

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]
EXAMPLES_A_ROUND = 4  # of each call


@pytest.mark.timeout(1_200)
def test_no_call_breaks_whatever_it_is_sent(server: ServerProcess, time_budget: Callable[[str], Budget]):
    headers = {"Authorization": f"Bearer {server.token('ann')}"}
    schema = schemathesis.openapi.from_url(f"{server.url}/api/openapi.json", headers=headers)
    # Streams have no end of their own; they are read in tests/promises.
    calls = [result.ok() for result in schema.exclude(path_regex=r"/events$|/agui/").get_all_operations()]
    assert len(calls) >= 14
    sent = 0
    for chance in time_budget("fuzz").rounds():
        for call in calls:

            @seed(chance.randrange(2**32))
            @settings(
                max_examples=EXAMPLES_A_ROUND,
                deadline=None,
                database=None,
                derandomize=False,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=call.as_strategy())
            def send(case: Case) -> None:
                nonlocal sent
                case.call_and_validate(checks=CHECKS, headers=headers, timeout=20)
                sent += 1

            send()
    print(f"{sent} calls")
    assert sent >= len(calls)
