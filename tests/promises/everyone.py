"""Many users at once on one real server, each with canaries of their own in everything that they say and are told."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx

from tests.agents import fake_provider as fake
from tests.promises.canaries import Canaries
from tests.serving import ServerProcess
from tests.socket_client import Client

CANCELLED_SHARE = 0.3
_MAKE_PEOPLE = """
import json, sys
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.auth.models import Permission
from django.contrib.sessions.backends.db import SessionStore
from apps.chat.authentication import issue_token

def session_of(user):
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return session.session_key

made = {}
for username, token_name in json.loads(sys.stdin.read()).items():
    user = get_user_model().objects.create_user(username)
    made[username] = [user.pk, issue_token(user.pk, token_name), session_of(user)]
staff = get_user_model().objects.create_user("operator", is_staff=True)
rooms = ("chat", "execution", "realtime", "operations", "rollout")
may = Permission.objects.filter(content_type__app_label__in=rooms, codename__startswith="view_")
staff.user_permissions.set(may.exclude(codename="view_contents"))
made["operator"] = [staff.pk, "", session_of(staff)]
print(json.dumps(made))
"""


@dataclass
class Someone:
    """A user with a tab, a program and a browser."""

    canaries: Canaries
    client: Client
    user_id: int
    session_key: str
    thread_ids: list[str] = field(default_factory=list)
    run_ids: list[str] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)  # of HTTP and of commands
    cancelled: int = 0


@dataclass
class Everyone:
    """All users of a server, and its operator's session."""

    server: ServerProcess
    people: list[Someone]
    operator_session: str

    def by_user_id(self) -> dict[int, str]:
        return {someone.user_id: someone.canaries.owner for someone in self.people}


class KnowingProvider:
    """Answers each request for its own user alone, whom it knows by what they last said; for ever."""

    def __init__(self, provider: fake.FakeProvider, everyone: list[Canaries]) -> None:
        self.provider = provider
        self._everyone = everyone
        provider.script = self  # type: ignore[assignment]

    def popleft(self) -> fake.Behaviour:
        request = self.provider.requests[-1]
        user = self.asker(request)
        last = request.body["messages"][-1]
        if user is None:
            return fake.says("who are you?")
        if last["role"] == "user" and "fail" in str(last["content"]):
            return fake.fails("400 Bad Request", json.dumps({"error": {"message": user.error}}))
        if last["role"] == "user" and "search" in str(last["content"]):
            return fake.calls_tool("search_threads", json.dumps({"query": "diary"}))
        return fake.says("here it is: ", user.reply[:7], user.reply[7:], " of yours")

    def asker(self, request: fake.Request) -> Canaries | None:
        """Whose question is the newest one in the request."""
        said = [str(message["content"]) for message in request.body["messages"] if message["role"] == "user"]
        return next((user for user in self._everyone if said and user.text in said[-1]), None)


@asynccontextmanager
async def knowing_provider(everyone: list[Canaries]) -> AsyncIterator[KnowingProvider]:
    async with fake.fake_provider() as provider:
        yield KnowingProvider(provider, everyone)


def make_people(server: ServerProcess, everyone: list[Canaries]) -> Everyone:
    wanted = {f"{user.owner}-{user.name}": user.token for user in everyone}
    done = server.manage("shell", "-v", "0", "-c", _MAKE_PEOPLE, stdin=json.dumps(wanted))
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout.splitlines()[-1])
    people = []
    for user in everyone:
        user_id, token, session_key = made[f"{user.owner}-{user.name}"]
        people.append(Someone(user, Client(server.url, server.ws_url, token), user_id, session_key))
    return Everyone(server, people, made["operator"][2])


async def talk(someone: Someone, chance: Random, everybody: Callable[[], Awaitable[Any]]) -> None:
    """One round of one user: every way to say, be told, be refused, fail and stop, while all others do the same."""
    user, client = someone.canaries, someone.client
    diary, thread_id = await client.new_thread(f"diary {user.title}"), await client.new_thread()
    someone.thread_ids += [diary, thread_id]
    asked = [
        ("metronome", f"count=30 interval_ms=5 tag={user.text}"),
        ("assistant", f"search my diary {user.text}"),
        ("assistant", f"what did I say before? {user.text}"),
        ("assistant", f"fail {user.text}"),
        ("faulty", "mode=raise after=2"),
    ]
    chance.shuffle(asked)
    async with client.connected():
        for agent, text in asked:
            await _ask(someone, thread_id, text, agent)
            await client.until_ended(someone.run_ids[-1])
        if chance.random() < CANCELLED_SHARE:
            await _ask(someone, thread_id, f"count=9000 interval_ms=5 tag={user.text}", "metronome")
            run_id = someone.run_ids[-1]
            await client.until(lambda c: len(c.events(run_id)) > 3)
            someone.replies.append(json.dumps(await client.command("run.cancel", run_id=run_id)))
            someone.cancelled += 1
            await client.until_ended(run_id)
        await everybody()  # once all have ended, a head poll later, nothing more can come


async def _ask(someone: Someone, thread_id: str, text: str, agent: str) -> None:
    reply = await someone.client.command("run.start", thread_id=thread_id, text=text, agent=agent)
    assert reply["ok"], reply
    someone.replies.append(json.dumps(reply))
    someone.run_ids.append(reply["result"]["run_id"])


async def everyone_talks(everyone: Everyone, chance: Random) -> None:
    barrier = asyncio.Barrier(len(everyone.people))
    async with asyncio.TaskGroup() as group:
        for someone in everyone.people:
            group.create_task(talk(someone, Random(chance.random()), barrier.wait))


async def everyone_looks(everyone: Everyone) -> None:
    """All that HTTP tells, on one connection that all share by turns, as behind a proxy, strangers' ids included."""
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(base_url=everyone.server.url, limits=limits, timeout=30) as http:
        people = everyone.people
        for someone, stranger in zip(people, [*people[1:], people[0]], strict=True):
            by_token = {"Authorization": f"Bearer {someone.client.token}"}
            by_session = {"Cookie": f"sessionid={someone.session_key}"}
            for address in ("me", "agents", "usage", "threads", "threads?query=diary"):
                await _note(someone, http, f"/api/{address}", by_token)
            for whose in (someone, stranger):
                for thread_id in whose.thread_ids[-2:]:
                    for ending in ("", "/export", "/export?format=json"):
                        await _note(someone, http, f"/api/threads/{thread_id}{ending}", by_token)
                for run_id in whose.run_ids[-6:]:
                    await _note(someone, http, f"/api/runs/{run_id}", by_token)
            for address in ("/", f"/threads/{stranger.thread_ids[-1]}/", "/api/me"):
                await _note(someone, http, address, by_session)


async def _note(someone: Someone, http: httpx.AsyncClient, address: str, headers: dict[str, str]) -> None:
    http.cookies.clear()
    answer = await http.get(address, headers=headers)
    assert answer.status_code in (200, 404), (address, answer.status_code)
    someone.replies.append(f"{answer.headers}\n{answer.text}")
