"""An operator follows one event through the row and through every live process, or is told that nobody knows."""

import asyncio
import json
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from apps.operations.models import ProcessReport, TraceAnswer, TraceRequest
from apps.operations.trace import TraceAnswering, answers, ask, unanswered
from apps.realtime.database import DatabaseThreads
from apps.realtime.models import Segment, Stream
from apps.realtime.tracing import DeliveryTrace
from apps.vocabulary import ConnectionId, UserId
from tests.operations.world import FIRST, World
from tests.socket_client import Client


def run(*arguments, capsys):
    try:
        call_command("trace", *map(str, arguments))
    except SystemExit as ended:
        return int(ended.code), capsys.readouterr().out
    return 0, capsys.readouterr().out


@pytest.mark.django_db
def test_without_a_process_the_row_alone_speaks_and_never_says_what_was_said(capsys):
    world = World()
    ann = world.user("ann")
    run_id = world.ended(ann).pk
    status, shown = run("ann", 2, capsys=capsys)
    assert status == 0
    assert shown.startswith(f"seq 2: RUN_STARTED of run {run_id}\naccepted  ")
    assert "\ncommitted " in shown
    assert "no process is running: hinted, sent and acknowledged are no longer known" in shown
    assert "count=3" not in shown
    assert run(ann.user_id, 2, capsys=capsys)[1].splitlines()[0] == shown.splitlines()[0]
    assert not TraceRequest.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("user", "seq", "says"),
    [
        ("nobody", 1, "there is no user 'nobody'"),
        ("ann", 99, "the stream of this user reaches to {head}"),
        ("ann", 0, "the stream of this user reaches to {head}"),
        ("ann", 1, "seq 1 is trimmed; the log begins behind 1"),
    ],
)
def test_an_event_that_is_not_there_is_said_to_be_so(capsys, user, seq, says):
    world = World()
    world.ended(world.user("ann"))
    Segment.objects.filter(first_seq=1).delete()
    Stream.objects.update(tail=1)
    says = says.format(head=Stream.objects.get().head)
    status, shown = run(user, seq, capsys=capsys)
    assert (status, shown.strip()) == (2, f"Trace: {says}")
    status, shown = run(user, seq, "--json", capsys=capsys)
    assert (status, json.loads(shown)) == (2, {"error": says})


@pytest.mark.django_db(transaction=True)
async def test_every_process_answers_once_and_old_questions_go():
    async with DatabaseThreads(1) as database:
        trace = DeliveryTrace(10)
        trace.note("sent", UserId(1), ConnectionId("tab"), 1, 9)
        for process_id in ("one", "two"):
            await database.call(ProcessReport.objects.report, process_id, FIRST, {})
        old = await database.call(ask, UserId(1), 5)
        await database.call(lambda: TraceRequest.objects.update(asked_at=timezone.now() - timedelta(seconds=90)))
        request = await database.call(ask, UserId(1), 5)
        assert len(await database.call(unanswered, request, 10)) == 2
        answering = TraceAnswering(database, "one", trace)
        for _ in range(2):
            await answering.turn()
        (answer,) = await database.call(answers, request)
        assert answer["process"] == "serve 41 on web-1"
        assert [mark["connection_id"] for mark in answer["marks"]] == ["tab"]
        assert len(await database.call(unanswered, request, 10)) == 1
        assert await database.call(TraceAnswer.objects.filter(request_id=old).count) == 0


async def test_on_a_real_server_a_tabs_event_is_followed_to_its_ack(server):
    client = Client(server.url, server.ws_url, server.token("ann"))
    thread_id = await client.new_thread()
    async with client.connected():
        run_id = await client.run(thread_id, "count=20 interval_ms=5 tag=secret")
        await client.until_ended(run_id)
        seq = client.seq - 3
        done = await asyncio.to_thread(server.manage, "trace", "ann", str(seq), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (process,) = told["processes"]
    steps = {mark["step"]: mark["at"] for mark in process["marks"]}
    assert steps.keys() == {"hinted", "sent", "acked"}
    assert {mark["connection_id"] for mark in process["marks"]} == {client.hello["connection_id"]}
    assert steps["hinted"] <= steps["sent"] <= steps["acked"]
    assert told["event"]["accepted_at"] <= told["event"]["committed_at"] + 0.001
    assert "secret" not in done.stdout
    assert told["silent"] == []
