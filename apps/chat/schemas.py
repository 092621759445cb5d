"""What HTTP calls take and give, as the OpenAPI document shows it. Input takes no field that is not named here."""

from typing import Annotated, Any, Final, Literal

from ninja import Schema
from pydantic import AfterValidator, ConfigDict, Field

from apps.chat.models import TITLE_LENGTH
from apps.chat.sse import CONTENT_TYPE, Shape, Until
from apps.realtime.protocol import IfBusy

QUERY_LENGTH = 200  # characters

# What ninja cannot say of a streamed answer.
EVENT_STREAM: Final = {
    "responses": {200: {"description": "OK", "content": {CONTENT_TYPE: {"schema": {"type": "string"}}}}}
}


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("the character U+0000 cannot be stored")
    return text


Title = Annotated[str, Field(max_length=TITLE_LENGTH), AfterValidator(_storable), AfterValidator(str.strip)]


class Input(Schema):
    """A body. JSON types are taken as they are: no number for a text."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ThreadIn(Input):
    """A new thread; without a title it is named after what is said first."""

    title: Title = ""


class ThreadChange(Input):
    """What to change; what is left out stays."""

    title: Title | None = None
    leaf_id: str | None = Field(None, min_length=1, max_length=128, description="Show the branch through this message.")


class RunIn(Input):
    """As `run.start` on the socket. With an `id` the call may be repeated: it acts once, for 24 hours."""

    id: str | None = Field(None, description="1 to 64 characters of A-Za-z0-9_-; made by the client.")
    thread_id: str
    text: str | None = None
    agent: str | None = None
    attachments: list[str] | None = None
    parent_message_id: str | None = Field(
        None,
        description="Start a branch behind this answer; or, of a user's message, beside it: that is an edit.",
    )
    retry_of: str | None = Field(None, description="Answer again what was asked in this run; then without `text`.")
    # Text may become an enumeration although types are strict: JSON has none.
    if_busy: Annotated[IfBusy, Field(strict=False)] = IfBusy.REJECT


class ThreadFilter(Schema):
    """Which threads to list."""

    query: Annotated[str, AfterValidator(_storable)] = Field(
        "", max_length=QUERY_LENGTH, description="Words in the title or in a message."
    )
    cursor: str = Field("", max_length=64, pattern="^[0-9a-f-]*$", description="`next_cursor` of the page before.")


class FollowFilter(Schema):
    """What of a thread to follow, and how far."""

    shape: Shape = Field(
        Shape.AGUI, description="`agui`: the runs' events, for AG-UI clients; `entries`: all events as on the socket."
    )
    until: Until = Field(Until.FOREVER, description="`run_end`: end the stream with the run at hand, or the next.")


class ThreadOut(Schema):
    """A thread."""

    id: str
    title: str
    leaf_id: str | None = Field(description="End of the branch that is shown.")
    created_at: str
    updated_at: str


class ThreadPage(Schema):
    """A page of threads, newest first."""

    threads: list[ThreadOut]
    next_cursor: str | None = Field(description="Send it as `cursor` for the page after; null on the last page.")


class AttachmentOut(Schema):
    """A file. `type` is the media type that its content has."""

    id: str
    name: str
    type: str
    bytes: int


class MessageOut(Schema):
    """A message. `parts` holds attachments of a user's; reasoning, tool calls and sub-agents of an answer, in order."""

    id: str
    parent_id: str | None
    run_id: str
    after_run_id: str | None = Field(
        description="The run whose newest answer is its parent, as long as that run goes on."
    )
    role: Literal["user", "assistant"]
    text: str
    parts: list[dict[str, Any]]
    complete: bool
    created_at: str


class ThreadRunOut(Schema):
    """A run as its thread shows it."""

    id: str
    message_id: str
    status: str
    agent: str | None
    error_code: str | None
    error_message: str = Field(description="What the user was told of a failure; empty where there was none.")
    after_id: str | None = Field(description="The answer that a resumed run goes on from.")


class SnapshotOut(Schema):
    """A thread at `position`. Apply the events after it, and none at or below `seq`."""

    thread: ThreadOut
    messages: list[MessageOut]
    runs: list[ThreadRunOut]
    interrupts: list[dict[str, Any]]
    position: str
    seq: int


class Usage(Schema):
    """Tokens."""

    input_tokens: int
    output_tokens: int


class RunOut(Schema):
    """A run."""

    id: str
    thread_id: str
    message_id: str
    agent: str
    status: str
    cancel_requested: bool
    place: int | None = Field(description="Place in the user's own queue, from 1; null when it is not queued.")
    parent_run_id: str | None
    retry_of: str | None
    error_code: str | None
    error_message: str = Field(description="What the user was told of a failure; empty where there was none.")
    usage: Usage
    admitted_at: str
    started_at: str | None
    ended_at: str | None


class StartedOut(Schema):
    """An admitted run. `replayed`: this `id` was admitted before, and nothing was done again."""

    run_id: str
    thread_id: str
    message_id: str
    place: int
    replayed: bool = False


class CancelOut(Schema):
    """`cancelling`: it ends soon, visibly. `cancelled`: it had not begun, and has ended."""

    run_id: str
    status: Literal["cancelling", "cancelled"]


class MeOut(Schema):
    """Who the call was made by."""

    id: str
    name: str
    username: str


class AgentOut(Schema):
    """An agent that may be asked."""

    name: str
    title: str
    description: str


class AgentsOut(Schema):
    """The agents, the default first."""

    agents: list[AgentOut]
    default: str


class UsageOut(Schema):
    """What the user's own runs used, in tokens: those that ended since midnight UTC (`today`), and ever (`total`).

    A run is admitted while `used` + `reserved` + what its agent may use is at most `quota`. `reserved` is what open
    runs may use yet. `used` counts like `today`, runs of deleted threads included.
    """

    today: Usage
    total: Usage
    runs: int
    quota: int
    used: int
    reserved: int


class Problem(Schema):
    """RFC 9457, as `application/problem+json`."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    details: Any = None
