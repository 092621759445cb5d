"""Ids and moments as they are stored."""

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from apps.chat.messages import bounded_id, moment, moment_of
from apps.chat.models import MESSAGE_ID_LENGTH


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=400))
def test_every_message_id_can_be_stored(any_id):
    assert len(bounded_id(any_id)) <= MESSAGE_ID_LENGTH
    if len(any_id) <= MESSAGE_ID_LENGTH:
        assert bounded_id(any_id) == any_id


@given(st.lists(st.floats(0, 4_000_000_000), min_size=2, max_size=2))
def test_moments_sort_as_times_do_and_survive_the_database(times):

    earlier, later = sorted(times)
    assert moment(earlier) <= moment(later)
    assert moment_of(datetime.fromisoformat(moment(earlier))) == moment(earlier)
