"""A stage is moved again and again, by the admin's form and by the command, and no run in flight notices."""

import asyncio
import json
import re
import subprocess
import sys

import httpx
import pytest

from tests.serving import ROOT
from tests.socket_client import Client

SEAM = "execution_engine"
PAGE = f"/admin/rollout/flag/seam/{SEAM}/"

_HOST = """
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
user = get_user_model().objects.create_superuser("mover")
session = import_module(settings.SESSION_ENGINE).SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.save()
print(session.session_key)
"""

# The command itself, in a process of its own, as often as it is told: starting Django for each move would be the test.
_COMMANDS = """
import io, sys
from django.core.management import call_command
asked = moved = 0
while moved < int(sys.argv[1]):
    asked += 1
    wish = (["off"], ["ramp", "--percent", str(1 + asked % 99)], ["on"])[asked % 3]
    try:
        call_command(
            "move_stage", "execution_engine", *wish, "--reason", "by the command",
            stdout=io.StringIO(), stderr=io.StringIO(),
        )
        moved += 1
    except SystemExit:
        pass  # somebody was faster, or it stood there already
print(moved)
"""

_BOOKS = """
import json
from apps.execution.models import Run
from apps.rollout.audit import Move
from apps.rollout.models import Flag
moves = [(row.version, row.at.timestamp(), row.to_stage) for row in Move.objects.order_by("version")]
runs = [
    (run.started_at.timestamp(), run.paths["execution_engine"]["path"], run.paths["execution_engine"]["version"],
     run.status)
    for run in Run.objects.exclude(started_at=None)
]
print(json.dumps({"moves": moves, "runs": runs, "version": Flag.objects.get(name="execution_engine").version}))
"""


def shell(server, code):
    done = server.manage("shell", "-v", "0", "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


async def move_by_form(server, session, wanted):
    """Posts the form until it has moved `wanted` times; a refusal is read, and decided anew."""
    moved = 0
    cookies = {"sessionid": session}
    async with httpx.AsyncClient(base_url=server.url, cookies=cookies, timeout=30) as http:
        while moved < wanted:
            page = await http.get(PAGE)
            version = re.search(r'name="version" value="(\d+)"', page.text)[1]
            token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)[1]
            form = {"stage": "ramp", "percent": str(1 + moved % 99), "reason": "by the form", "version": version}
            answer = await http.post(PAGE, data=form | {"csrfmiddlewaretoken": token}, headers={"Referer": server.url})
            assert answer.status_code in (302, 400, 409), answer.status_code
            moved += answer.status_code == 302
    return moved


async def run_until(client, finished):
    thread_id = await client.new_thread()
    async with client.connected():
        while not finished.is_set():
            run_id = await client.run(thread_id, "count=4 interval_ms=5 tag=x")
            await client.until_ended(run_id)
            assert client.text(run_id) == "0:x 1:x 2:x 3:x "


@pytest.mark.timeout(900)
async def test_moves_by_form_and_command_disturb_no_run_and_are_obeyed_by_the_next_claim(server, request):
    each = 500 if request.config.getoption("--proof") else 15
    session = shell(server, _HOST)
    clients = [Client(server.url, server.ws_url, token) for token in server.tokens(["anna", "ben", "chloe"]).values()]
    finished = asyncio.Event()
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"import django; django.setup()\n{_COMMANDS}", str(each)),
        cwd=ROOT,
        env=server.environment | {"DJANGO_SETTINGS_MODULE": "project.settings", "LOG_LEVEL": "ERROR"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(run_until(client, finished))
        try:
            by_form = await move_by_form(server, session, each)
            out, err = await command.communicate()
            assert command.returncode == 0, err.decode()
        finally:
            finished.set()
    check_books(json.loads(shell(server, _BOOKS)), by_form + int(out))


def check_books(books, moved):
    moves, runs = books["moves"], books["runs"]
    assert [version for version, _, _ in moves] == list(range(1, moved + 1)), "a row for each move, none lost"
    assert books["version"] == moved
    stages = {0: "on"} | {version: stage for version, _, stage in moves}
    fixed = {"on": "factory", "off": "legacy"}
    for started, path, version, status in runs:
        assert status == "succeeded"
        assert fixed.get(stages[version], path) == path, "the path is that of the stage that it was pinned at"
        # Writers stand in one line here, so what a move wrote before a claim began is what the claim read.
        assert version == max([number for number, at, _ in moves if at < started], default=0)
    assert len({version for _, _, version, _ in runs}) > 5, "runs were claimed between the moves"
