from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.agents.arithmetic import evaluate
from apps.agents.questions import (
    Calculation,
    DayQuestion,
    OtherQuestion,
    ThreadQuestion,
    TimeQuestion,
    understand,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2+2", 4),
        ("2 + 2 =", 4),
        ("What is 12 * (3 + 4)?", 84),
        ("what's 7 times 6?", 42),
        ("What\u2019s 7 x 6?", 42),
        ("Please calculate 1,000 + 2,500", 3500),
        ("20% of 65", 13),
        ("How much is 100 divided by 8?", 12.5),
        ("2 to the power of 10", 1024),
        ("12 squared", 144),
        ("sqrt(81) plus 1", 10),
        ("max(1,200)", 200),
        ("-3 - 4", -7),
        ("hello, what is 1+1?", 2),
    ],
)
def test_a_calculation_is_recognised(text, value):
    question = understand(text)
    assert isinstance(question, Calculation)
    assert evaluate(question.expression) == value


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("What time is it?", TimeQuestion()),
        ("what's the time", TimeQuestion()),
        ("What time is it in Europe/Berlin?", TimeQuestion("Europe/Berlin")),
        ("what is the date?", DayQuestion()),
        ("What day is it today?", DayQuestion()),
        ("what is today's date", DayQuestion()),
        ("today", DayQuestion()),
        ("What day is tomorrow?", DayQuestion(shift_days=1)),
        ("What was yesterday?", DayQuestion(shift_days=-1)),
        ("what day is it in 3 weeks?", DayQuestion(shift_days=21)),
        ("what day was it 10 days ago?", DayQuestion(shift_days=-10)),
        ("What day is 2030-01-01?", DayQuestion(day=date(2030, 1, 1))),
        ("2030-01-01", DayQuestion(day=date(2030, 1, 1))),
        ("How many days until 2030-01-01?", DayQuestion(until=date(2030, 1, 1))),
        ("days between 2026-01-01 and 2026-03-01", DayQuestion(date(2026, 1, 1), 0, date(2026, 3, 1))),
        ("Find my threads about invoices", ThreadQuestion("invoices")),
        ("search for tax 2025", ThreadQuestion("tax 2025")),
        ('Search my conversations for "blue whale"', ThreadQuestion("blue whale")),
        ("what did I say about Rome?", ThreadQuestion("Rome")),
        ("my threads about cats", ThreadQuestion("cats")),
        ("Do I have any chats about boats?", ThreadQuestion("boats")),
    ],
)
def test_a_question_about_days_or_threads_is_recognised(text, question):
    assert understand(text) == question


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "?",
        "42",
        "pi",
        "What is the time complexity of quicksort?",
        "What day should we meet?",
        "Who won in 1998?",
        "What is 2030-02-30?",
        "the date palm is a tree",
        "find",
        "e",
        "1 + one",
        "2" * 600,
        "Write a poem about the number 7",
    ],
)
def test_what_no_rule_fits_is_not_guessed_at(text):
    assert understand(text) == OtherQuestion()


KNOWN_WORDS = """
what is the day time date now today in ago weeks 3 2030-01-01 between and until days how many 's
find my threads about search for x % of ( ) + squared
"""


@given(st.text(max_size=700))
def test_any_text_is_understood_or_left_alone(text):
    assert understand(text) is not None


@given(
    st.lists(
        st.sampled_from(KNOWN_WORDS.split()),
        max_size=60,
    )
)
def test_text_made_of_known_words_is_understood_or_left_alone(words):
    assert understand(" ".join(words)) is not None
