"""Over a real socket: an agent asks, two tabs see it, one answer wins, and the next run does what was approved."""

import asyncio

from tests.serving import ServerProcess
from tests.socket_client import Client


async def test_an_approval_over_the_socket_starts_one_run_that_both_tabs_see(tmp_path, migrated):
    agents = {"TURNOUT_AGENTS": "tests.execution.odd_agents.Asking"}
    server = ServerProcess(tmp_path, migrated, agents)
    token = server.token("anna")
    stranger_token = server.token("ben")
    server.start()
    try:
        first, second = (Client(server.url, server.ws_url, token) for _ in range(2))
        stranger = Client(server.url, server.ws_url, stranger_token)
        async with first.connected(), second.connected(), stranger.connected():
            thread_id = await first.new_thread()
            asked = await first.run(thread_id, "x", "asking")
            await asyncio.gather(first.until_ended(asked), second.until_ended(asked))
            (interrupt,) = (await first.snapshot(thread_id))["interrupts"]
            decision = {"interrupt_id": interrupt["id"], "approve": True}
            foreign = await stranger.command("tool.decide", **decision)
            assert foreign["error"]["code"] == "not_found"
            tabs = enumerate((first, second))
            answers = await asyncio.gather(*(tab.command("tool.decide", id=f"d{n}", **decision) for n, tab in tabs))
            won, lost = sorted(answers, key=lambda reply: not reply["ok"])
            assert lost["error"]["code"] == "already_decided"
            resumed = won["result"]["run_id"]
            await asyncio.gather(first.until_ended(resumed), second.until_ended(resumed))
            assert first.text(resumed).startswith('done: write {"what":"x"}')
            assert first.text(resumed) == second.text(resumed)
        assert (await first.snapshot(thread_id))["interrupts"] == []
        assert server.manage("audit_isolation").returncode == 0
        assert server.stop() == 0
    finally:
        server.kill()
