from hypothesis import given
from hypothesis import strategies as st

from apps.agents.base import HistoryMessage
from apps.agents.history import NO_RESULT, paired

IDS = st.sampled_from("abcd")


def call(tool_call_id):
    return {"id": tool_call_id, "type": "function", "function": {"name": "calculator", "arguments": "{}"}}


MESSAGES = st.lists(
    st.one_of(
        st.builds(lambda: HistoryMessage("user", "question", "m")),
        st.builds(
            lambda text, ids: HistoryMessage("assistant", text, "m", tool_calls=tuple(map(call, ids))),
            st.sampled_from(["", "answer"]),
            st.lists(IDS, unique=True, max_size=3),
        ),
        st.builds(lambda i: HistoryMessage("tool", f"result of {i}", "m", tool_call_id=i), IDS),
    ),
    max_size=12,
)


@given(MESSAGES)
def test_each_call_is_followed_by_exactly_its_results_and_no_result_is_an_orphan(messages):
    due = []
    for message in paired(messages):
        if message.role == "tool":
            assert message.tool_call_id == due.pop(0)
        else:
            assert not due
            due = [call["id"] for call in message.tool_calls]
    assert not due


@given(MESSAGES)
def test_no_question_and_no_answer_is_lost(messages):
    def said(those):
        return [message for message in those if message.role == "user" or message.text == "answer"]

    assert said(paired(messages)) == said(messages)


def test_a_sound_history_is_left_as_it_is():
    sound = [
        HistoryMessage("user", "1 + 1?", "m1"),
        HistoryMessage("assistant", "", "m2", tool_calls=(call("a"),)),
        HistoryMessage("tool", "2", "m3", tool_call_id="a"),
        HistoryMessage("assistant", "It is 2.", "m4"),
    ]
    assert paired(sound) == sound


def test_a_call_whose_run_was_cut_is_told_that_its_result_is_not_known():
    cut = [HistoryMessage("assistant", "", "m2", tool_calls=(call("a"),)), HistoryMessage("user", "and?", "m5")]
    assert [message.text for message in paired(cut)] == ["", NO_RESULT, "and?"]
