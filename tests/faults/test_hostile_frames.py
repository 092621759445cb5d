"""Hostile frames on a real server's socket: the right code, nothing stored, no trace, and nobody else
notices.

Each case carries its number in the shared list of hostile inputs (37-65): JSON, then protocol.
"""

import asyncio
import json

import pytest

from tests.faults.attacking import (
    DROPPED,
    LAST,
    SUBSCRIBE,
    attack,
    damaged,
    head_of,
    nobody_notices,
    ping_with,
    say_without_listening,
    socket_of,
)
from tests.serving import serving
from tests.socket_client import Client


@pytest.fixture(scope="module")
def fortress(tmp_path_factory, migrated):
    """One server for all attacks: whatever one of them breaks, the next one finds broken."""
    with serving(tmp_path_factory.mktemp("fortress"), migrated) as server:
        server.names = server.tokens(["anna", "bert"])
        yield server
        assert "Traceback" not in "".join(server.output), "".join(server.output)


@pytest.fixture
async def thread_id(fortress):
    return await Client(fortress.url, fortress.ws_url, fortress.names["anna"]).new_thread()


VIOLATIONS = {
    "24 binary": b'{"type":"ping","t":1}',
    "25 empty text": "",
    "37 no JSON": "hello",
    "37 []": "[]",
    "37 null": "null",
    "37 number": "3",
    "37 string": '"ping"',
    "38 byte order mark": "\ufeff" + ping_with('"x":1'),
    "39 trailing comma": '{"type":"ping","t":1,}',
    "39 two objects": ping_with('"x":1') * 2,
    "40 NaN": '{"type":"ping","t":NaN}',
    "40 Infinity": '{"type":"ping","t":Infinity}',
    "40 1e999": '{"type":"ping","t":1e999}',
    "41 5000 digits": '{"type":"ping","t":' + "9" * 5000 + "}",
    "42 nested 1100 deep": ping_with('"x":' + "[" * 1100 + "]" * 1100),
    "42 nested as deep as fits": "[" * 65_000,
    "43 a key twice": '{"type":"ping","t":1,"t":2}',
    "43 id twice": '{"type":"run.cancel","id":"a","id":"b","run_id":"r"}',
    "44 a type with underscores": {"type": "__class__"},
    "47 lone surrogate": ping_with('"x":"\\ud800"'),
    "49 1.0": {"type": "ack", "seq": 1.0},
    "49 true": {"type": "ack", "seq": True},
    "54 ack of a negative": {"type": "ack", "seq": -1},
    "55 no id": {"type": "run.cancel", "run_id": "r"},
    "55 an id of 65 characters": {"type": "run.cancel", "id": "x" * 65, "run_id": "r"},
    "55 a list for an id": {"type": "run.cancel", "id": ["x"], "run_id": "r"},
    "57 unknown type": {"type": "hello"},
    "57 no type": {"t": 1},
    "63 subscribe again": SUBSCRIBE,
    "64 an object to echo": {"type": "ping", "t": {"x": "y" * 60_000}},
}


@pytest.mark.parametrize("frame", VIOLATIONS.values(), ids=VIOLATIONS)
async def test_what_no_client_would_send_is_a_violation(fortress, frame):
    async with nobody_notices(fortress):
        outcome = await attack(fortress, frame)
        assert outcome.close_code == 4400
        assert not outcome.of("reply")


@pytest.mark.parametrize("value", ['"\\udfff"', "NaN", "1e999"], ids=["47 lone surrogate", "40 NaN", "40 1e999"])
async def test_40_47_a_command_that_is_no_json_is_answered_before_the_end_where_its_id_can_be_read(fortress, value):
    async with nobody_notices(fortress):
        outcome = await attack(fortress, '{"type":"run.start","id":"a","thread_id":"t","text":' + value + "}")
        assert outcome.errors == {"a": "bad_request"}
        assert outcome.close_code == 4400
        assert "retry_after_ms" not in outcome.frames[-1], "it is the client that must change"


@pytest.mark.parametrize("after", [-1, 2**53, 2**64, 1.5, True, ["x"]], ids=str)
async def test_52_a_position_that_is_no_text_is_a_violation(fortress, after):
    async with nobody_notices(fortress):
        outcome = await attack(fortress, subscribe={"type": "subscribe", "after": after})
        assert outcome.close_code == 4400


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ("1", "epoch_changed"),
        ("", "epoch_changed"),
        ("a" * 60_000, "epoch_changed"),
        ("0123456789abcdef.0.0000000000000000", "epoch_changed"),
        ("EPOCH.9007199254740991.0123456789abcdef", "ahead"),
        ("EPOCH.0.0123456789abcdef", "forked"),
        ("EPOCH.-1.0123456789abcdef", "epoch_changed"),
    ],
    ids=lambda text: text[:44],
)
async def test_52_53_a_position_of_another_history_is_answered_by_a_reset(fortress, after, reason):
    head = await head_of(fortress)
    async with nobody_notices(fortress):
        subscribe = {"type": "subscribe", "after": after.replace("EPOCH", head.split(".")[0])}
        outcome = await attack(fortress, subscribe=subscribe, awaiting="reset")
        assert [frame["reason"] for frame in outcome.of("reset")] == [reason]
        assert outcome.of("reset")[0]["head"] == head
        assert outcome.close_code is None


@pytest.mark.parametrize("kind", ["ack", "pong"])
async def test_54_an_ack_of_what_was_never_sent_is_a_violation_and_an_old_one_is_none(fortress, thread_id, kind):
    head = await head_of(fortress)
    earlier = f"{head.split('.')[0]}.0.{'0' * 16}"
    seq = int(head.split(".")[1])
    async with nobody_notices(fortress):
        outcome = await attack(
            fortress,
            {"type": kind, "t": 1, "seq": 0, "acked": 0},
            subscribe={"type": "subscribe", "after": earlier},
            awaiting="events",
        )
        assert outcome.close_code is None
        async with socket_of(fortress, "anna") as socket:
            await socket.send(json.dumps({"type": "subscribe", "after": earlier}))
            while json.loads(await socket.recv())["type"] != "events":
                pass
            await socket.send(json.dumps({"type": kind, "t": 1, "seq": seq + 1, "acked": seq + 1}))
            await socket.wait_closed()
            assert socket.close_code == 4400


@pytest.mark.parametrize(
    "frame",
    [{"type": "ack", "seq": 0}, {"type": "ping", "t": 1}, {"type": "pong", "t": 1, "acked": 0}, {"type": "x"}],
    ids=lambda frame: frame["type"],
)
async def test_51_anything_before_subscribe_is_a_violation(fortress, frame):
    async with nobody_notices(fortress):
        outcome = await attack(fortress, frame, subscribe=None)
        assert outcome.close_code == 4400


async def test_51_a_command_before_subscribe_is_answered_but_not_carried_out(fortress, thread_id):
    async with nobody_notices(fortress):
        start = {"type": "run.start", "id": "early", "thread_id": thread_id, "text": "hello"}
        outcome = await attack(fortress, start, subscribe=None)
        assert outcome.errors == {"early": "bad_request"}
        assert outcome.close_code == 4400


@pytest.mark.parametrize("letter", ["x", "é", "😀"])
async def test_50_a_frame_of_64_kib_passes_and_one_byte_more_does_not(fortress, letter):
    empty = len(ping_with('"x":""'))
    fitting = letter * ((65_536 - empty) // len(letter.encode()))
    filled = ping_with(f'"x":"{fitting}{"x" * (65_536 - empty - len(fitting.encode()))}"')
    assert len(filled.encode()) == 65_536
    async with nobody_notices(fortress):
        outcome = await attack(fortress, filled)
        assert outcome.close_code is None
        outcome = await attack(fortress, filled + " ")
        assert outcome.close_code == 4413


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "x" * 1_048_576},
        {"type": "subscribe", "after": "x" * 10_485_760},
        "😀" * 65_536,
        "[" * 100_000,
        {"type": "ping", "t": 1} | {f"key{number}": number for number in range(100_000)},
    ],
    ids=["57 type of 1 MiB", "53 epoch of 10 MiB", "50 64 Ki characters", "42 nested 100 k", "45 100 k keys"],
)
async def test_a_frame_far_too_large_ends_the_connection(fortress, frame):
    async with nobody_notices(fortress):
        outcome = await attack(fortress, frame)
        assert outcome.close_code in (4413, DROPPED)
        assert not outcome.of("pong")


async def test_44_45_49_odd_but_harmless_frames_are_taken_for_what_they_say(fortress):
    keys = ",".join(f'"k{number}":0' for number in range(4_000))
    async with nobody_notices(fortress):
        outcome = await attack(
            fortress,
            ping_with('"__proto__":{"x":1},"constructor":{},"__class__":"x"'),
            ping_with(keys),
            '{"type":"ack","seq":-0}',
        )
        assert outcome.of("pong")[-1] == {"type": "pong", "t": LAST}
        assert outcome.close_code is None


BAD_COMMANDS = {
    "46 NUL in a text": ({"text": "a\0b"}, "bad_request"),
    "46 NUL in a thread": ({"thread_id": "a\0b"}, "bad_request"),
    "46 NUL in an agent": ({"agent": "a\0b"}, "bad_request"),
    "50 a text of 32 KiB and a byte": ({"text": "x" * 32_767}, "input_too_large"),
    "58 no such thread": ({"thread_id": "nobody-has-this"}, "not_found"),
    "61 if_busy": ({"if_busy": "perhaps"}, "bad_request"),
    "62 agent that is a path": ({"agent": "../../x"}, "agent_unknown"),
    "62 agent with underscores": ({"agent": "__class__"}, "agent_unknown"),
    "62 agent that nobody registered": ({"agent": "nobody"}, "agent_unknown"),
    "57 unknown command": ({"type": "run.fork"}, "unknown_command"),
    "44 command with underscores": ({"type": "__init__"}, "unknown_command"),
    "59 decision of nothing": ({"type": "tool.decide", "interrupt_id": "i", "approve": True}, "not_found"),
    "59 decision of neither kind": ({"type": "tool.decide", "interrupt_id": "i", "approve": 1}, "bad_request"),
}


@pytest.mark.parametrize(("change", "code"), BAD_COMMANDS.values(), ids=BAD_COMMANDS)
async def test_a_command_that_cannot_be_carried_out_is_answered_and_leaves_no_row(fortress, thread_id, change, code):
    async with nobody_notices(fortress, may_store=["chat_commandreceipt"]):
        start = {"type": "run.start", "id": f"bad-{thread_id}", "thread_id": thread_id, "text": "hello"}
        outcome = await attack(fortress, start | change, awaiting="reply")
        assert outcome.errors == {f"bad-{thread_id}": code}
        assert outcome.close_code is None


async def test_58_what_belongs_to_another_user_is_answered_like_what_does_not_exist(fortress):
    bert = Client(fortress.url, fortress.ws_url, fortress.names["bert"])
    async with bert.connected():
        thread = await bert.new_thread()
        run = await bert.run(thread, "count=1 interval_ms=1 tag=x", id="theirs")
        await bert.until_ended(run)
    async with nobody_notices(fortress, may_store=["chat_commandreceipt"]):
        outcome = await attack(
            fortress,
            {"type": "run.start", "id": "theirs-1", "thread_id": thread, "text": "hello"},
            {"type": "run.start", "id": "unknown-1", "thread_id": thread[::-1], "text": "hello"},
            {"type": "run.cancel", "id": "theirs-2", "run_id": run},
            {"type": "run.cancel", "id": "unknown-2", "run_id": run[::-1]},
            awaiting="reply",
            times=4,
        )
        errors = {frame["id"]: frame["error"] for frame in outcome.of("reply")}
        assert errors["theirs-1"] == errors["unknown-1"]
        assert errors["theirs-2"] == errors["unknown-2"]
        assert set(outcome.errors.values()) == {"not_found"}


async def test_48_odd_letters_arrive_and_come_back_as_they_are(fortress, thread_id):
    anna = Client(fortress.url, fortress.ws_url, fortress.names["anna"])
    text = "count=1 interval_ms=1 tag=x \u202egnp.exe a\u200bb e" + "\u0301" * 10_000 + " \u2028\u0085\x7f"
    async with anna.connected():
        await anna.until_ended(await anna.run(thread_id, text, id="odd"))
    snapshot = await anna.snapshot(thread_id)
    assert next(message["text"] for message in snapshot["messages"]) == text


async def test_55_56_an_id_belongs_to_its_user_and_to_one_content(fortress, thread_id):
    anna, bert = (Client(fortress.url, fortress.ws_url, fortress.names[name]) for name in ("anna", "bert"))
    same = {"id": f"same-{thread_id[:8]}", "text": "count=1 interval_ms=1 tag=x", "agent": "metronome"}
    async with anna.connected(), bert.connected():
        mine = await anna.command("run.start", thread_id=thread_id, **same)
        theirs = await bert.command("run.start", thread_id=await bert.new_thread(), **same)
        again = await anna.command("run.start", thread_id=thread_id, **same)
        other = await anna.command("run.start", thread_id=thread_id, **same | {"text": "other"})
        await anna.until_ended(mine["result"]["run_id"])
        await bert.until_ended(theirs["result"]["run_id"])
    assert theirs["result"]["run_id"] != mine["result"]["run_id"]
    assert "replayed" not in theirs
    assert again == mine | {"replayed": True}
    assert other["error"]["code"] == "id_reused"


async def test_60_a_storm_of_cancels_ends_a_run_once(fortress, thread_id):
    anna = Client(fortress.url, fortress.ws_url, fortress.names["anna"])
    async with anna.connected():
        run = await anna.run(thread_id, "count=100000 interval_ms=5 tag=x", id="storm")
        await anna.until(lambda client: client.text(run))
        replies = await asyncio.gather(*(anna.command("run.cancel", run_id=run, id=f"storm-{n}") for n in range(20)))
        await anna.until_ended(run)
        late = await anna.command("run.cancel", run_id=run, id="late")
        assert [event["type"] for event in anna.terminals(run)] == ["RUN_FINISHED"]
    answers = {reply["result"]["status"] if reply["ok"] else reply["error"]["code"] for reply in replies}
    assert answers <= {"cancelling", "run_finished"}
    assert late["error"]["code"] == "run_finished"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (SUBSCRIBE, 4400),
        ({"type": "ping", "t": 1}, 4429),
        ({"type": "ack", "seq": 0}, 4429),
        ({"type": "run.cancel", "id": "c", "run_id": "r"}, 4429),
        ({"type": "run.fork", "id": "c"}, 4429),
    ],
    ids=["63 subscribe", "64 ping", "54 ack", "65 run.cancel", "57 unknown"],
)
async def test_ten_thousand_frames_at_once_end_the_connection(fortress, frame, code):
    async with nobody_notices(fortress, may_store=["chat_commandreceipt"]):
        outcome = await attack(fortress, *[frame] * 10_000)
        assert outcome.close_code == code
        assert len(outcome.frames) < 3_000, "what waits for a client that does not read has a bound"


async def test_65_a_client_that_commands_and_never_reads_is_cut_off(fortress):
    commands = [{"type": "run.cancel", "id": f"deaf-{number}", "run_id": "r"} for number in range(10_000)]
    async with nobody_notices(fortress, may_store=["chat_commandreceipt"]):
        assert await say_without_listening(fortress, [SUBSCRIBE, *commands]) in (4429, DROPPED)


async def test_damaged_frames_end_their_own_connection_at_most(fortress, time_budget):
    whole = [
        {"type": "subscribe", "after": "0123456789abcdef.0.0000000000000000"},
        {"type": "run.start", "id": "fuzz", "thread_id": "nobody-has-this", "text": "a: b", "if_busy": "reject"},
        {"type": "ack", "seq": 0, "proofs": [{"message_id": "m", "sha256": "a" * 64}]},
        {"type": "tool.decide", "id": "fuzz", "interrupt_id": "i", "approve": True},
        {"type": "pong", "t": 1, "acked": 0},
    ]
    ends = set()
    async with nobody_notices(fortress, may_store=["chat_commandreceipt"]):
        for chance in time_budget("fuzz").rounds():
            frames = [damaged(chance, json.dumps(chance.choice(whole)).encode()) for _ in range(10)]
            ends.add((await attack(fortress, *frames)).close_code)
    assert ends <= {None, 4400, 4413}
