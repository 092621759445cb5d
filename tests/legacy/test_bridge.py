"""The flaws are the promise here: without them the isolation tests would have no positive control."""

import pytest

from apps.legacy.bridge import AgentWebSocketBridge, get_agent_websocket_bridge
from apps.realtime.values import RunLease
from apps.vocabulary import RunId, ThreadId, UserId, new_id


def lease_of(user_id, thread_id=None):
    return RunLease(RunId(new_id()), ThreadId(thread_id or new_id()), UserId(user_id), fence=1)


def test_while_one_user_is_there_alone_all_is_well():
    bridge = AgentWebSocketBridge()
    bridge.bind(lease_of(1))
    assert bridge.recipients("TEXT_MESSAGE_CONTENT") == {1}


def test_the_rest_of_an_answer_goes_to_whoever_started_a_run_later():
    bridge = AgentWebSocketBridge()
    bridge.bind(lease_of(1))
    bridge.bind(lease_of(2))
    assert bridge.recipients("TEXT_MESSAGE_CONTENT") == {2}


def test_who_binds_a_thread_last_owns_it():
    bridge = AgentWebSocketBridge()
    bridge.bind(lease_of(1, "thread"))
    bridge.bind(lease_of(2, "thread"))
    assert bridge.thread_registry == {"thread": 2}


async def test_both_runs_are_given_the_same_bridge_and_none_is_unbound_at_its_end():
    async with get_agent_websocket_bridge(lease_of(1)) as hers:
        async with get_agent_websocket_bridge(lease_of(2)) as his:
            assert hers is his
        assert hers.recipients("TEXT_MESSAGE_CONTENT") == {2}


@pytest.mark.parametrize("threads", [1, 1_000])
def test_the_registry_of_threads_has_no_bound(threads):
    bridge = AgentWebSocketBridge()
    for _ in range(threads):
        bridge.bind(lease_of(1))
    assert repr(bridge) == f"<AgentWebSocketBridge threads={threads}>"
