import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from apps.agents.assistant import AssistantAgent
from apps.agents.base import AgentInput
from apps.agents.streaming import words
from tests.agents.worlds import ADA, BOB, Threads, World, left_open, text_of, types


async def ask(text, **world):
    world = World(**world)
    events = await world.events(AssistantAgent(), text)
    assert left_open(events) == set()
    return events


async def answer(text, **world):
    return text_of(await ask(text, **world))


async def test_arithmetic_is_answered_by_the_calculator_whose_call_is_shown():
    events = await ask("What is 12 * (3 + 4)?")
    assert types(events)[:5] == [
        "TOOL_CALL_START",
        "TOOL_CALL_ARGS",
        "TOOL_CALL_END",
        "TOOL_CALL_RESULT",
        "TEXT_MESSAGE_START",
    ]
    assert (events[0].tool_call_name, events[3].content) == ("calculator", "84")
    assert events[1].delta == '{"expression":"12 * (3 + 4)"}'
    assert "`12 * (3 + 4)` = **84**" in text_of(events)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("1 / 3", "`1 / 3` ≈ **0.333333333333333**"),
        ("1 / 0", "I could not do that: division by zero"),
        ("what time is it?", "It is **2026-03-01 09:12** in UTC, a Sunday."),
        ("what time is it in Tokyo?", "It is **2026-03-01 18:12** in Asia\\/Tokyo, a Sunday."),
        ("time in new york", "It is **2026-03-01 04:12** in America\\/New\\_York, a Sunday."),
        ("time in Atlantis", "I could not do that: timezone"),
        ("How many days until Christmas?", "2026-12-25 is **299 days** away."),
        ("days until new year", "2027-01-01 is **306 days** away."),
        ("square root of 144", "`sqrt(144)` = **12**"),
        ("what is the square root of (9 + 16)?", "`sqrt((9 + 16))` = **5**"),
        ("what day is it?", "Today is **Sunday, 2026-03-01**."),
        ("tomorrow", "That day is **Monday, 2026-03-02**."),
        ("what day is 2030-01-01?", "That day is **Tuesday, 2030-01-01**."),
        ("days until 2026-03-02", "2026-03-02 is **1 day** away."),
        ("days since 2026-02-27", "2026-02-27 was **2 days** ago."),
        ("days between 2026-01-01 and 2026-02-01", "From 2026-01-01 to 2026-02-01 it is **31 days**."),
        ("days between 2026-02-01 and 2026-01-01", "it is **31 days** back."),
        ("what day is it in 900000 weeks?", "I could not do that"),
    ],
)
async def test_what_it_can_do_by_itself_it_answers(question, expected):
    text = await answer(question)
    assert expected in text
    assert "no model configured" in text


async def test_it_finds_the_users_own_threads_and_nobody_elses():
    threads = Threads(user1="invoices of ada", user2="invoices of bob")
    for identity, other in ((ADA, "bob"), (BOB, "ada")):
        text = await answer("find my threads about invoices", identity=identity, threads=threads)
        assert f"invoices of {identity.name}" in text
        assert other not in text


async def test_it_says_when_no_thread_matches():
    assert "None of your threads mentions `whales`" in await answer("search for whales", threads=Threads())


async def test_a_title_cannot_make_a_browser_call_home():
    title = "boats ![](https://evil.example/x.png) [click](javascript:alert(1)) <script>alert(1)</script>"
    html = MarkdownIt("commonmark").render(await answer("search for boats", threads=Threads(user1=title)))
    assert not any(tag in html for tag in ("<img", "<a ", "<script"))


async def test_a_query_cannot_either():
    query = "`![](https://evil.example/x.png)"
    html = MarkdownIt("commonmark").render(await answer(f"search for {query}", threads=Threads()))
    assert "<img" not in html
    assert "evil.example" in html


async def test_anything_else_is_answered_with_what_is_missing_and_how_to_set_it():
    text = await answer("Write me a poem", threads=Threads())
    for said in (
        "no model configured",
        "TURNOUT_MODEL",
        "TURNOUT_MODEL_API_KEY",
        "TURNOUT_MODEL_BASE_URL",
        "arithmetic",
        "your own threads",
    ):
        assert said in text


async def test_it_does_not_offer_what_this_server_does_not_have():
    assert "your own threads" not in await answer("Write me a poem")
    assert "no model configured" in await answer("search for whales")


async def test_it_says_that_it_cannot_read_attachments():
    world = World()
    task = AgentInput(world.run_id, "thread", "what is on this picture?", attachments=("a1",))
    events = [event async for event in AssistantAgent().run(world, task)]
    assert "I cannot read attachments." in text_of(events)


async def test_it_streams_word_by_word_and_counts_a_token_a_word():
    world = World()
    deltas = [
        event.delta
        for event in await world.events(AssistantAgent(), "tell me a story")
        if types([event]) == ["TEXT_MESSAGE_CONTENT"]
    ]
    assert all(len(delta.split()) == 1 for delta in deltas)
    assert (world.usage.input_tokens, world.usage.output_tokens) == (4, len(deltas))


@given(st.text())
def test_the_words_joined_are_the_text(text):
    assert "".join(words(text)) == text


@given(st.text(max_size=200))
async def test_any_text_gets_an_answer(text):
    assert await answer(text, threads=Threads())
