"""Everything that a deployment lets out or keeps, piece by piece, each with the one user who may be in it."""

import asyncio
import contextlib
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from html import unescape

import httpx

from tests.promises.canaries import Search
from tests.promises.everyone import Everyone, KnowingProvider
from tests.serving import ServerProcess

RECORD = re.compile(r"^(?=\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", re.MULTILINE)
ROWS_OF_A_MODEL = 3  # pages of single rows: they are all made by the same code
IN_LOGS = ("name", "error")  # an operator must find out why a run of somebody failed; never what was said
AUDITS = ("audit_isolation", "audit_cleanup")


@asynccontextmanager
async def monitored(port: int) -> AsyncIterator[list[str]]:
    """All commands that this Valkey is sent by anyone."""
    seen: list[str] = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)

    async def listen() -> None:
        while line := await reader.readline():
            seen.append(line.decode("latin1"))

    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"
    listening = asyncio.create_task(listen())
    try:
        yield seen
    finally:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
        writer.close()


def look_at_frames_and_replies(search: Search, everyone: Everyone) -> None:
    for someone in everyone.people:
        owner = someone.canaries.owner
        search.look("frames", json.dumps(someone.client.seen), owner)
        search.look("frames", json.dumps(someone.client.history), owner)
        for reply in someone.replies:
            search.look("replies", reply, owner)


def look_at_rows(search: Search, everyone: Everyone) -> None:
    """Each row is its user's where it names one, and of one user at most anyway."""
    owners = everyone.by_user_id()
    with closing(sqlite3.connect(f"file:{everyone.server.database}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in database.execute(f'SELECT * FROM "{table}"'):
                fields = dict(row)
                text = "\n".join(
                    value.decode("latin1") if isinstance(value, bytes) else str(value) for value in fields.values()
                )
                holder = owners.get(fields["id"] if table == "auth_user" else fields.get("user_id", -1))
                if holder is None:
                    search.look_for_mixtures(f"table {table}", text, ("name", "text", "title", "token", "reply"))
                else:
                    search.look("rows", text, holder)


def look_at_requests(search: Search, provider: KnowingProvider) -> None:
    for request in provider.provider.requests:
        user = provider.asker(request)
        search.look("provider", json.dumps(request.body) + str(request.headers), user.owner if user else None)


def look_at_log(search: Search, server: ServerProcess) -> None:
    for record in RECORD.split("".join(server.output)):
        search.look_for_mixtures("log", record, IN_LOGS)


async def look_at_public_pages(search: Search, everyone: Everyone) -> None:
    async with httpx.AsyncClient(base_url=everyone.server.url, timeout=30) as http:
        for address in ("/healthz", "/readyz", "/metrics", "/api/openapi.json", "/accounts/login/", "/nothing/here"):
            answer = await http.get(address)
            search.look("public", f"{answer.headers}\n{answer.text}")
            search.look(address, answer.text)


async def look_at_admin(search: Search, everyone: Everyone) -> None:
    """What staff see who may view everything but contents: every page that a link leads to."""
    cookies = {"sessionid": everyone.operator_session}
    waiting, seen = ["/admin/"], set()
    async with httpx.AsyncClient(base_url=everyone.server.url, timeout=30, cookies=cookies) as http:
        while waiting:
            address = waiting.pop(0)
            model = address.split("/")[:4]
            alike = [other for other in seen if "/change/" in other and other.split("/")[:4] == model]
            if address in seen or ("/change/" in address and len(alike) >= ROWS_OF_A_MODEL):
                continue
            seen.add(address)
            answer = await http.get(address)
            assert answer.status_code in (200, 302, 404), (address, answer.status_code)
            # Staff are told who somebody is, where they may see users at all; never what was said.
            search.look("admin", answer.text, may=("name", "token"))
            links = [unescape(link) for link in re.findall(r'href="([^"]+)"', answer.text)]
            for link in links:
                target = str(httpx.URL(answer.url).join(link).raw_path.decode())
                if target.startswith("/admin/") and "logout" not in target and "?" not in target:
                    waiting.append(target)
    assert len(seen) > 20, seen


async def look_at_commands(search: Search, everyone: Everyone, *, expected: int) -> None:
    someone = everyone.people[0]
    calls = [(name, "--json") for name in AUDITS]
    calls.append(("trace", str(someone.user_id), "5"))
    for call in calls:
        done = await asyncio.to_thread(everyone.server.manage, *call)
        search.look("commands", done.stdout + done.stderr)
        if call[0] == "audit_isolation":
            assert done.returncode == expected, done.stdout + done.stderr
