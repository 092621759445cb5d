"""A restored database is noticed, and after new epochs no tab goes on from the history that is gone."""

import logging

import pytest
from ag_ui.core import CustomEvent
from django.db import transaction
from hypothesis import given
from hypothesis import strategies as st

from apps.operations.streams import chain_fault
from apps.realtime.database import DatabaseThreads
from apps.realtime.epochs import SeenMark, Witness, is_older, renew_mark, rotate_some
from apps.realtime.log import EventLog, LogLimits
from apps.realtime.models import HistoryMark, Stream
from apps.realtime.protocol import ResetReason
from apps.realtime.reader import PositionRequest, read_all
from apps.realtime.values import LogEntry
from apps.vocabulary import UserId

pytestmark = pytest.mark.django_db(transaction=True)


def say(user_id):
    with transaction.atomic():
        return EventLog(LogLimits()).append(UserId(user_id), [LogEntry(CustomEvent(name="said", value=1))])


def test_every_stream_gets_an_epoch_of_its_own_step_by_step_and_keeps_its_events():
    before = {user_id: say(user_id) for user_id in (1, 2, 3, 4, 5)}
    last, steps = UserId(-1), []
    while (last := rotate_some(last, 2)) is not None:
        steps.append(last)
    assert steps == [2, 4, 5]
    after = {stream.user_id: stream.position for stream in Stream.objects.all()}
    assert len({position.epoch for position in [*before.values(), *after.values()]}) == 10
    for user_id, old in before.items():
        assert (after[user_id].seq, after[user_id].tag) == (old.seq, old.tag)
        assert chain_fault(user_id) is None
        (answer,) = read_all([PositionRequest(UserId(user_id), old)]).values()
        assert (answer.reset, answer.head) == (ResetReason.EPOCH_CHANGED, after[user_id])
        (answer,) = read_all([PositionRequest(UserId(user_id), after[user_id])]).values()
        assert answer.reset is None


marks = st.builds(SeenMark, name=st.sampled_from("abc"), beat=st.integers(0, 5))


@given(one=marks, other=marks)
def test_of_two_marks_at_most_one_is_older_and_a_newer_name_is_never(one, other):
    assert not (is_older(one, other) and is_older(other, one))
    assert is_older(one, other) == ((one.name, one.beat) < (other.name, other.beat))


def nobody_is_here():
    """No tab is connected."""


def set_beat(beat):
    HistoryMark.objects.all().current()
    HistoryMark.objects.filter(pk=1).update(beat=beat)


@pytest.mark.parametrize("restarted", [False, True], ids=["a process that lived", "a file that outlived the process"])
async def test_a_restore_is_noticed_and_new_epochs_make_the_witness_content(tmp_path, caplog, restarted):
    file = tmp_path / "witness" if restarted else None
    async with DatabaseThreads(1) as database:
        sent_back = []
        witness = Witness(database, file, lambda: sent_back.append(1))
        for beat in (5, 6, 9):
            await database.call(set_beat, beat)
            await witness.look()
            assert not witness.went_back
        if restarted:
            witness = Witness(database, file, lambda: sent_back.append(1))
        await database.call(set_beat, 7)
        for _ in range(2):
            await witness.look()
            assert witness.went_back
        assert sent_back == [1]
        assert [record.levelno for record in caplog.records] == [logging.CRITICAL]
        await database.call(renew_mark)
        await witness.look()
        assert not witness.went_back


async def test_a_backup_from_before_the_last_rotation_is_a_restore_and_a_new_database_is_none(tmp_path):
    file = tmp_path / "witness"
    async with DatabaseThreads(1) as database:
        await database.call(set_beat, 3)
        old = await database.call(HistoryMark.objects.get)
        await Witness(database, file, nobody_is_here).look()
        await database.call(renew_mark)
        await Witness(database, file, nobody_is_here).look()
        await database.call(old.save)
        restored = Witness(database, file, nobody_is_here)
        await restored.look()
        assert restored.went_back
        await database.call(HistoryMark.objects.all().delete)
        new = Witness(database, file, nobody_is_here)
        await new.look()
        assert not new.went_back


async def test_a_file_that_cannot_be_read_or_written_is_told_and_ends_nothing(tmp_path, caplog):
    async with DatabaseThreads(1) as database:
        (tmp_path / "witness").write_text("{half")
        await Witness(database, tmp_path / "witness", nobody_is_here).look()
        await Witness(database, tmp_path / "no folder" / "witness", nobody_is_here).look()
    assert [record.getMessage().split(":")[0][:30] for record in caplog.records] == [
        "what was remembered of the dat",
        "how far the database is cannot",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["witness"]
