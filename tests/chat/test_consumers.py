"""The socket of one tab, with the whole process behind it and no network before it."""

import asyncio
import hashlib
from contextlib import asynccontextmanager

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client

from apps.chat.authentication import issue_token
from apps.chat.models import CommandReceipt, Thread
from apps.execution.models import Run
from project.composition import open_services
from project.configuration import Configuration
from tests.chat.tab import Tab, blocked_database

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def anna():
    return get_user_model().objects.create_user("anna")


@pytest.fixture
def token(anna):
    return [(b"authorization", b"Bearer " + issue_token(anna.pk).encode())]


@pytest.fixture
def thread(anna):
    return Thread.objects.create(user_id=anna.pk).pk


@asynccontextmanager
async def services_with(**bounds):
    async with open_services(Configuration(**bounds), kind="test") as services:
        yield services


def cancel(number):
    return {"type": "run.cancel", "id": f"c{number}", "run_id": "no-such-run"}


def start(thread, command_id="start"):
    text = "count=3 interval_ms=1 tag=x"
    return {"type": "run.start", "id": command_id, "thread_id": thread, "text": text, "agent": "metronome"}


async def test_a_run_that_a_tab_starts_is_answered_and_streamed_to_it(token, thread):
    async with services_with() as services:
        tab = await Tab(services, token).subscribed()
        tab.send(start(thread))
        types, reply = [], None
        while "RUN_FINISHED" not in types or reply is None:
            frame = await tab.frame()
            if frame["type"] == "reply":
                reply = frame
            if frame["type"] == "events":
                types += [entry["event"]["type"] for entry in frame["events"]]
        assert reply["ok"]
        assert next(name for name in types if name != "CUSTOM") == "RUN_STARTED"
        tab.drop()
        await tab.ended()


async def test_what_a_tab_proves_is_compared_with_what_was_stored(token, thread, caplog):
    async with services_with(proof_look_s=3600.0) as services:
        tab = await Tab(services, token).subscribed()
        tab.send(start(thread))
        entries = []
        while not any(entry["event"]["type"] == "RUN_FINISHED" for entry in entries):
            entries += (await tab.frame("events"))["events"]
        deltas = [entry["event"] for entry in entries if entry["event"]["type"] == "TEXT_MESSAGE_CONTENT"]
        text = "".join(event["delta"] for event in deltas)
        proofs = [
            {"message_id": deltas[0]["messageId"], "sha256": hashlib.sha256(told.encode()).hexdigest()}
            for told in (text, text[:-1])
        ]
        tab.send({"type": "ack", "seq": entries[-1]["seq"], "proofs": proofs}, {"type": "ping", "t": 1})
        await tab.frame("pong")
        proving = services.bridges._proofs
        await proving.look()
        assert (proving.verified, proving.broken) == (1, 1)
        assert f"ended by seq {entries[-1]['seq']} of epoch" in caplog.text
        tab.drop()
        await tab.ended()


async def test_accepting_names_the_subprotocol_and_hello_names_the_user(token, anna):
    async with services_with() as services:
        tab = Tab(services, token)
        assert await tab.message() == {"type": "websocket.accept", "subprotocol": "turnout.v1"}
        assert (await tab.frame())["user"] == {"id": str(anna.pk), "name": "anna"}
        tab.drop()
        await tab.ended()


@pytest.mark.parametrize(
    ("headers", "subprotocols"),
    [
        ([(b"authorization", b"Bearer x")], ()),
        ([(b"cookie", b"sessionid=x")], ("turnout.v1",)),
        ([(b"origin", b"http://evil.example")], ("turnout.v1",)),
    ],
)
async def test_a_refused_handshake_is_closed_before_it_is_accepted(headers, subprotocols):
    async with services_with() as services:
        tab = Tab(services, headers, subprotocols)
        assert (await tab.message())["type"] == "websocket.close"
        await tab.ended()
        assert tab._from_app.empty()


@pytest.mark.parametrize("headers", [[], [(b"authorization", b"Bearer wrong")]])
async def test_nobody_is_accepted_told_so_and_closed(headers):
    async with services_with() as services:
        tab = Tab(services, headers)
        assert (await tab.message())["type"] == "websocket.accept"
        assert await tab.closed() == 4401
        assert services.pool.census()["connections_opened_total"] == 0


async def test_a_client_that_leaves_before_it_connects_leaves_nothing(token):
    async with services_with() as services:
        tab = Tab(services, token)
        tab._to_app.get_nowait()
        tab.drop()
        await tab.ended()
        assert tab._from_app.empty()


@pytest.mark.parametrize(
    "frame",
    [{"type": "ack", "seq": 0}, {"type": "ping", "t": 1}, {"type": "pong", "t": 1, "acked": 0}],
    ids=lambda frame: frame["type"],
)
async def test_the_first_frame_is_subscribe(token, frame):
    async with services_with() as services:
        tab = Tab(services, token)
        await tab.message()
        tab.send(frame)
        assert await tab.closed() == 4400


async def test_a_command_before_subscribe_is_answered_and_not_carried_out(token, thread):
    async with services_with() as services:
        for command in (start(thread), {"type": "run.fork", "id": "start"}):
            tab = Tab(services, token)
            await tab.message()
            tab.send(command)
            assert (await tab.reply())["error"]["code"] == "bad_request"
            assert await tab.closed() == 4400
        assert await services.database.call(Run.objects.count) == 0


@pytest.mark.parametrize(
    ("frame", "code"),
    [("{", 4400), ("", 4400), ("x" * 65_537, 4413), ('{"type":"ping","t":true}', 4400), ('{"type":"subscribe"}', 4400)],
    ids=["not JSON", "empty", "too large", "not a number", "subscribed already"],
)
async def test_a_frame_that_breaks_the_protocol_ends_the_connection_and_what_follows_is_not_heard(
    token, thread, frame, code
):
    async with services_with() as services:
        tab = await Tab(services, token).subscribed()
        tab.send(frame, start(thread), frame)
        assert await tab.closed() == code
        assert await services.database.call(CommandReceipt.objects.count) == 0


async def test_a_binary_frame_ends_the_connection(token):
    async with services_with() as services:
        tab = await Tab(services, token).subscribed()
        tab.send_bytes(b'{"type":"ping","t":1}')
        assert await tab.closed() == 4400


async def test_a_malformed_frame_with_an_id_is_answered_before_the_end(token):
    async with services_with() as services:
        tab = await Tab(services, token).subscribed()
        tab.send({"id": "c1"})
        reply = await tab.reply()
        assert (reply["id"], reply["error"]["code"]) == ("c1", "bad_request")
        assert await tab.closed() == 4400


async def test_a_command_that_cannot_be_read_is_answered_and_the_connection_goes_on(token, thread):
    async with services_with() as services:
        tab = await Tab(services, token).subscribed()
        tab.send(start(thread) | {"if_busy": "perhaps"}, {"type": "run.fork", "id": "c2"}, {"type": "ping", "t": 7})
        assert (await tab.frame())["error"]["code"] == "bad_request"
        assert (await tab.frame())["error"]["code"] == "unknown_command"
        assert await tab.frame() == {"type": "pong", "t": 7}
        tab.drop()
        await tab.ended()


async def test_commands_are_answered_in_their_order(token):
    async with services_with() as services:
        tab = await Tab(services, token).subscribed()
        tab.send(*(cancel(number) for number in range(20)))
        replies = [await tab.reply() for _ in range(20)]
        assert [reply["id"] for reply in replies] == [f"c{number}" for number in range(20)]
        assert {reply["error"]["code"] for reply in replies} == {"not_found"}
        tab.drop()
        await tab.ended()


async def test_a_slow_command_delays_no_ping(token):
    async with services_with(database_threads=1) as services:
        tab = await Tab(services, token).subscribed()
        async with blocked_database(services):
            tab.send(cancel(1), {"type": "ping", "t": 7})
            assert await tab.frame() == {"type": "pong", "t": 7}
        assert (await tab.reply())["id"] == "c1"
        tab.drop()
        await tab.ended()


async def test_who_is_too_fast_is_told_and_who_does_not_listen_is_closed(token):
    async with services_with(command_rate_per_s=0.01, command_burst=3) as services:
        tab = await Tab(services, token).subscribed()  # which costs one of the three
        tab.send(cancel(1), cancel(2))
        answers = [await tab.reply(), await tab.reply()]
        tab.send(cancel(3), cancel(4), cancel(5), cancel(6))
        answers += [await tab.reply() for _ in range(3)]
        replies = {reply["id"]: reply["error"] for reply in answers}
        assert {name: error["code"] for name, error in replies.items()} == {
            "c1": "not_found",
            "c2": "not_found",
            "c3": "rate_limited",
            "c4": "rate_limited",
            "c5": "rate_limited",
        }
        assert replies["c3"]["retry_after_s"] > 0
        assert await tab.closed() == 4429


async def test_acks_and_pings_cost_a_twentieth_of_a_command(token):
    async with services_with(command_rate_per_s=0.01, command_burst=3) as services:
        tab = await Tab(services, token).subscribed()  # 2 left, and 3 more before it is far over
        tab.send(*({"type": "ping", "t": number} for number in range(99)))
        while (await tab.frame("pong"))["t"] < 98:
            pass
        tab.send(*({"type": "ack", "seq": 0} for _ in range(5)))
        assert await tab.closed() == 4429


async def test_a_command_at_work_when_the_socket_drops_acts_and_those_behind_it_do_not(token, thread):
    async with services_with(database_threads=1) as services:
        tab = await Tab(services, token).subscribed()
        async with blocked_database(services):
            tab.send(start(thread, "first"), start(thread, "second"), {"type": "ping", "t": 1})
            assert (await tab.frame())["t"] == 1
            tab.drop()
        await tab.ended()
        assert await services.database.call(
            lambda: list(CommandReceipt.objects.values_list("command_id", flat=True))
        ) == ["first"]
        again = await Tab(services, token).subscribed()
        again.send(start(thread, "first"))
        reply = await again.reply()
        assert (reply["ok"], reply["replayed"]) == (True, True)
        again.drop()
        await again.ended()


async def test_a_consumer_that_is_cancelled_without_a_disconnect_leaves_nothing_open(token):
    async with services_with() as services:
        tab = await Tab(services, token).subscribed()
        tab.send({"type": "ping", "t": 1})
        await tab.frame("pong")
        assert services.pool.census()["connections"] == 1
        before = {task.get_name() for task in asyncio.all_tasks()}
        tab.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await tab.task
        assert services.pool.census()["connections"] == 0
        after = {task.get_name() for task in asyncio.all_tasks()}
        assert {name.partition("-")[0] for name in before - after} >= {"emitter"}


async def test_a_command_that_still_waits_when_the_connection_is_closed_is_not_begun(token, thread):
    async with services_with(database_threads=1) as services:
        tab = await Tab(services, token).subscribed()
        async with blocked_database(services):
            tab.send(cancel(1), start(thread), {"type": "ping", "t": 1}, "{")
            assert (await tab.frame())["t"] == 1
            assert (await tab.frame("bye"))["code"] == 4400
        assert await tab.message() == {"type": "websocket.close", "code": 4400}
        assert await services.database.call(Run.objects.count) == 0
        tab.drop()
        await tab.ended()
        assert await services.database.call(Run.objects.count) == 0


async def test_a_socket_that_is_gone_is_no_error_whenever_it_went(token):
    async with services_with() as services:
        early = Tab(services, token)
        early.is_gone = True
        early.drop()
        await early.ended()
        late = await Tab(services, token).subscribed()
        late.is_gone = True
        late.send({"type": "ping", "t": 1}, cancel(1))
        late.drop()
        await late.ended()
        assert services.pool.census()["connections"] == 0


async def test_a_session_that_ends_closes_its_tab_and_gives_it_no_say_any_more(anna, thread):
    def log_in():
        client = Client()
        client.force_login(anna)
        return client.cookies["sessionid"].value

    async with services_with(revalidate_s=0.05) as services:
        key = await services.database.call(log_in)
        headers = [(b"cookie", f"sessionid={key}".encode()), (b"origin", b"http://testserver")]
        tab = await Tab(services, headers).subscribed()
        await services.database.call(Session.objects.all().delete)
        bye = await tab.frame("bye")
        assert bye["code"] == 4401
        tab.send(start(thread))
        assert await tab.message() == {"type": "websocket.close", "code": 4401}
        tab.drop()
        await tab.ended()
        assert await services.database.call(Run.objects.count) == 0


async def test_a_full_process_sends_newcomers_away(token):
    async with services_with(connections=1, connections_per_user=1) as services:
        first = await Tab(services, token).subscribed()
        second = Tab(services, token)
        assert (await second.message())["type"] == "websocket.accept"
        bye = await second.frame()
        assert bye["code"] == 4013
        assert bye["retry_after_ms"] > 0
        second.drop()
        await second.ended()
        first.drop()
        await first.ended()


async def test_a_process_that_drains_sends_newcomers_and_tabs_away(token):
    async with services_with() as services:
        tab = await Tab(services, token).subscribed()
        services.pool.say_goodbye()
        assert await tab.closed() == 4012
        late = Tab(services, token)
        await late.message()
        assert await late.closed() == 4012


async def test_while_the_database_does_not_answer_newcomers_are_told_to_back_off(token):
    def rename(table, to):
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table} RENAME TO {to}")

    async with services_with() as services:
        await services.database.call(rename, "chat_apitoken", "away")
        try:
            tab = Tab(services, token)
            await tab.message()
            assert await tab.closed() == 4013
        finally:
            await services.database.call(rename, "away", "chat_apitoken")
