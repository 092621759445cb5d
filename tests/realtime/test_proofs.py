"""What tabs prove: compared later, counted, bounded, and logged without text."""

import pytest

from apps.realtime.proofs import ProofChecker, ProofLimits
from apps.realtime.protocol import Ack, Proof, Subscribe
from apps.vocabulary import ConnectionId, MessageId, UserId
from tests.realtime.connected_room import Wire, open_connected_room

ANNA, BERT = UserId(1), UserId(2)
RIGHT, WRONG = "a" * 64, "b" * 64


class Direct:
    """Database threads that call at once, and fail when they are told to."""

    error: Exception | None = None

    async def call(self, function, *args):
        if self.error is not None:
            raise self.error
        return function(*args)


class Desk(ProofChecker):
    def __init__(self, **bounds):
        self.now = 0.0
        self.stored = {}
        self.threads = Direct()
        limits = {"waiting": 10, "waiting_per_user": 4, "batch": 100, "look_s": 3600.0, "patience_s": 60.0}
        super().__init__(self.threads, lambda _: self.stored, ProofLimits(**limits | bounds), lambda: self.now)

    def hand(self, user, *message_ids, sha256=RIGHT):
        proofs = [Proof(MessageId(message_id), sha256) for message_id in message_ids]
        self.hand_in(user, ConnectionId("c"), proofs, "0123456789abcdef", 7)

    def counts(self):
        return {name.removesuffix("_total"): number for name, number in self.census().items() if number}


async def test_a_proof_is_verified_or_broken_by_what_is_stored_of_its_own_user():
    desk = Desk()
    desk.stored = {(ANNA, "m"): [RIGHT], (BERT, "m"): [WRONG, RIGHT]}
    desk.hand(ANNA, "m")
    desk.hand(ANNA, "m", sha256=WRONG)
    desk.hand(BERT, "m", sha256=WRONG)
    await desk.look()
    assert desk.counts() == {"verified": 2, "broken": 1}


async def test_a_broken_proof_is_logged_with_its_place_and_no_text(caplog):
    desk = Desk()
    desk.stored = {(ANNA, "m\x1b[1m"): [RIGHT]}
    desk.hand(ANNA, "m\x1b[1m", sha256=WRONG)
    await desk.look()
    (record,) = caplog.records
    assert "seq 7 of epoch 0123456789abcdef" in record.getMessage()
    assert "\x1b" not in record.getMessage()
    assert RIGHT not in record.getMessage()


async def test_what_is_not_stored_yet_is_looked_at_again_until_patience_ends():
    desk = Desk()
    desk.hand(ANNA, "late", "never")
    await desk.look()
    assert desk.counts() == {"waiting": 2}
    desk.stored = {(ANNA, "late"): [RIGHT]}
    await desk.look()
    assert desk.counts() == {"waiting": 1, "verified": 1}
    desk.now = 60.0
    await desk.look()
    assert desk.counts() == {"verified": 1, "unchecked": 1}


async def test_what_waits_is_bounded_for_a_user_and_for_all_and_a_place_is_free_again():
    desk = Desk()
    for user in (ANNA, BERT, UserId(3)):
        desk.hand(user, *"abcde")
    assert desk.counts() == {"waiting": 10, "dropped": 5}
    desk.now = 60.0
    await desk.look()
    desk.hand(ANNA, *"abcde")
    assert desk.counts() == {"waiting": 4, "dropped": 6, "unchecked": 10}


async def test_what_cannot_be_read_now_keeps_its_place():
    desk = Desk(batch=2)
    desk.hand(ANNA, *"abc")
    desk.threads.error = OSError("the database is away")
    with pytest.raises(OSError, match="away"):
        await desk.look()
    assert [one.proof.message_id for one in desk._waiting] == list("abc")
    desk.threads.error = None
    desk.stored = {(ANNA, name): [RIGHT] for name in "abc"}
    await desk.look()
    assert desk.counts() == {"waiting": 1, "verified": 2}


@pytest.mark.django_db(transaction=True)
async def test_a_connection_hands_in_what_its_tab_proves_where_it_stands():
    async with open_connected_room() as room:
        wire = Wire()
        connection = await room.connect(1, wire)
        connection.subscribe(Subscribe(None, None))
        await room.append(1, 3)
        await wire.until(lambda w: w.seqs() == [1, 2, 3])
        connection.acknowledged(Ack(3, (Proof(MessageId("m"), RIGHT),)))
        (handed,) = room.proofs._waiting
        assert (handed.user_id, handed.epoch, handed.seq) == (1, (wire.of("hello")[0]["head"]).split(".")[0], 3)
        room.digests = {(ANNA, MessageId("m")): [RIGHT]}
        await room.proofs.look()
        assert room.proofs.verified == 1
