import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.agents.base import AgentInputError
from apps.agents.options import Options


def read_or_refused(text):
    try:
        options = Options.parse(text, ("count", "tag"))
        options.number("count", 1, 0, 100)
        options.text("tag", "t", 10)
    except AgentInputError as error:
        return error.public_message
    return None


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_what_is_accepted(text):
    told = read_or_refused(text)
    assert told is None or "count" in told or "tag" in told


@given(st.integers(0, 100), st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=10))
def test_what_was_written_is_what_is_read(count, tag):
    options = Options.parse(f"  count={count}\ttag={tag} ", ("count", "tag"))
    assert (options.number("count", 7, 0, 100), options.text("tag", "x", 10)) == (count, tag)


@pytest.mark.parametrize("text", ["count=-1", "count=101", "count=1.0", "count=", "count=9" + "9" * 5000, "count=0x1"])
def test_a_number_out_of_its_bounds_is_refused_with_the_bounds(text):
    with pytest.raises(AgentInputError, match="a whole number from 0 to 100"):
        Options.parse(text, ("count",)).number("count", 1, 0, 100)


def test_an_error_quotes_only_the_beginning_of_a_long_word():
    with pytest.raises(AgentInputError) as caught:
        Options.parse("x" * 10_000, ("count",))
    assert len(caught.value.public_message) < 200


def test_an_option_given_twice_is_refused():
    with pytest.raises(AgentInputError, match="given twice"):
        Options.parse("count=1 count=2", ("count",))
