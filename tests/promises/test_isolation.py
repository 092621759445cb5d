"""Nothing of user A reaches user B on the path of a new installation.

Frames only, and quickly: this much is also asked where a room was taken out. Every other sink, and the proof that the
search finds the singletons' leaks, has `test_isolation_everywhere.py`.
"""

import asyncio
import secrets

from tests.socket_client import Client

USERS = 12


async def run_everyone_at_once(server) -> dict[str, int]:
    """Each user's run says a canary of their own, all at the same time; how many foreign canaries each user saw."""
    names = [f"user{n}" for n in range(USERS)]
    tokens = server.tokens(names)
    canaries = {name: secrets.token_hex(16) for name in names}
    clients = {name: Client(server.url, server.ws_url, token) for name, token in tokens.items()}

    async def one(name: str, client: Client) -> None:
        thread_id = await client.new_thread()
        async with client.connected():
            for text, agent in (
                (f"count=40 interval_ms=10 tag={canaries[name]}", "metronome"),
                (f"remember {canaries[name]}", "assistant"),
                ("what did I ask you before?", "assistant"),
            ):
                run_id = await client.run(thread_id, text, agent)
                await client.until_ended(run_id)
            # Once everybody has ended, a head poll later, nothing more can come.
            await barrier.wait()

    barrier = asyncio.Barrier(USERS)
    async with asyncio.TaskGroup() as group:
        for name, client in clients.items():
            group.create_task(one(name, client))
    return {
        name: sum(canaries[other] in str(client.seen) for other in names if other != name)
        for name, client in clients.items()
    }


async def test_no_user_sees_anything_of_another_on_the_factorys_path(server):
    assert set((await run_everyone_at_once(server)).values()) == {0}
    audit = server.manage("audit_isolation")
    assert audit.returncode == 0, audit.stdout + audit.stderr
