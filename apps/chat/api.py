"""The HTTP calls of the chat: translate, call one method, translate the answer.

A refusal is raised, and answered as a problem (`problems.py`). Identity goes from here, as an argument, to whatever
touches rows.
"""

from typing import Annotated, Any, Final, Literal

import orjson
from ag_ui.core import RunAgentInput
from django.contrib.auth.models import AbstractUser
from django.http import HttpRequest, HttpResponse
from django.utils.http import content_disposition_header
from ninja import File, Path, Query, Status
from ninja.errors import AuthenticationError
from ninja.files import UploadedFile

from apps.chat import agui, attachments, export, problems, schemas
from apps.chat.api_docs import BrowsablePage
from apps.chat.authentication import Principal, identity_of, principal_of
from apps.chat.conversation import Conversation, describe_thread
from apps.chat.following import following, following_run, granted
from apps.chat.http import FastJson, PrivateApi, SessionAccess, StrictJson, TokenAccess
from apps.chat.models import Thread
from apps.chat.snapshot import read_snapshot
from apps.execution.apps import execution_config
from apps.realtime.decoding import decode
from apps.realtime.protocol import CloseCode, Limits, MalformedFrame, RefusedCommand, RunStart
from apps.vocabulary import ErrorCode, Identity, MessageId, Refusal, RunId, ThreadId, UserId, new_id

THREADS_PER_PAGE: Final = 50

api = PrivateApi(
    title="Turnout",
    version="1",
    description="Threads, runs, and what a user may know of them. Errors are application/problem+json with a `code`.",
    auth=[TokenAccess(), SessionAccess()],
    docs=BrowsablePage(),
    parser=StrictJson(),
    renderer=FastJson(),
    urls_namespace="api",
)
problems.install(api)

ThreadKey = Annotated[str, Path(description="A thread's `id`.")]
AgentKey = Annotated[str, Path(description="An agent's `name`, as /api/agents lists them.")]
AttachmentKey = Annotated[str, Path(description="An attachment's `id`.")]
RunKey = Annotated[str, Path(description="A run's `id`.")]
_PROBLEMS: Final = {400: schemas.Problem, 401: schemas.Problem, 403: schemas.Problem}
_ONE_PROBLEMS: Final = {**_PROBLEMS, 404: schemas.Problem}
_COMMAND_PROBLEMS: Final = {
    **_ONE_PROBLEMS,
    409: schemas.Problem,
    413: schemas.Problem,
    429: schemas.Problem,
    503: schemas.Problem,
}


# -- threads


@api.post("/threads", response={201: schemas.ThreadOut, 429: schemas.Problem, **_PROBLEMS}, tags=["threads"])
def create_thread(request: HttpRequest, body: schemas.ThreadIn | None = None) -> Status[dict[str, Any]]:
    """Start a thread."""
    title = "" if body is None else body.title
    return Status(201, describe_thread(_conversation().create_thread(_identity(request), title)))


@api.get("/threads", response={200: schemas.ThreadPage, **_PROBLEMS}, tags=["threads"])
def list_threads(request: HttpRequest, wanted: Query[schemas.ThreadFilter]) -> dict[str, Any]:
    """Own threads, newest first; with `query`, those that mention it."""
    rows = Thread.objects.owned(_user_id(request)).rows
    if words := " ".join(wanted.query.split()):
        rows = rows.mentioning(words)
    cursor = ThreadId(wanted.cursor) if wanted.cursor else None
    found = list(rows.newest_first(cursor)[: THREADS_PER_PAGE + 1])
    page = found[:THREADS_PER_PAGE]
    more = len(found) > THREADS_PER_PAGE
    return {"threads": [describe_thread(thread) for thread in page], "next_cursor": page[-1].pk if more else None}


@api.get("/threads/{thread_id}", response={200: schemas.SnapshotOut, **_ONE_PROBLEMS}, tags=["threads"])
def show_thread(request: HttpRequest, thread_id: ThreadKey) -> HttpResponse:
    """The thread as it is now: all messages as a tree, an open one with its text so far, and the position to go on
    from.
    """
    snapshot = read_snapshot(_user_id(request), ThreadId(thread_id))
    return HttpResponse(orjson.dumps(snapshot.as_json()), content_type="application/json")


@api.patch("/threads/{thread_id}", response={200: schemas.ThreadOut, **_ONE_PROBLEMS}, tags=["threads"])
def change_thread(request: HttpRequest, thread_id: ThreadKey, body: schemas.ThreadChange) -> dict[str, Any]:
    """Rename a thread, or show another of its branches."""
    leaf_id = None if body.leaf_id is None else MessageId(body.leaf_id)
    thread = _conversation().change_thread(_identity(request), ThreadId(thread_id), title=body.title, leaf_id=leaf_id)
    return describe_thread(thread)


@api.delete("/threads/{thread_id}", response={204: None, **_ONE_PROBLEMS}, tags=["threads"])
def delete_thread(request: HttpRequest, thread_id: ThreadKey) -> Status[None]:
    """Delete a thread with all that was said in it. Its runs are cancelled."""
    _conversation().delete_thread(_identity(request), ThreadId(thread_id))
    return Status(204, None)


@api.get("/threads/{thread_id}/export", response={200: schemas.SnapshotOut, **_ONE_PROBLEMS}, tags=["threads"])
def export_thread(
    request: HttpRequest,
    thread_id: ThreadKey,
    format: Literal["markdown", "json"] = "markdown",  # noqa: A002 - the parameter's public name
) -> HttpResponse:
    """The thread as a file: the shown branch as Markdown, or the whole tree as JSON."""
    snapshot = read_snapshot(_user_id(request), ThreadId(thread_id))
    if format == "json":
        content, kind, ending = orjson.dumps(export.as_json(snapshot)), "application/json", "json"
    else:
        content, kind, ending = export.as_markdown(snapshot).encode(), "text/markdown; charset=utf-8", "md"
    disposition = f'attachment; filename="thread-{snapshot.view.thread_id}.{ending}"'
    return HttpResponse(content, content_type=kind, headers={"Content-Disposition": disposition})


@api.get(
    "/threads/{thread_id}/events",
    response={200: None, **_ONE_PROBLEMS, 503: schemas.Problem},
    tags=["threads"],
    openapi_extra=schemas.EVENT_STREAM,
)
def follow_thread(request: HttpRequest, thread_id: ThreadKey, wanted: Query[schemas.FollowFilter]) -> HttpResponse:
    """Server-Sent Events of a thread, as they come. `id:` is a position; `Last-Event-ID` goes on behind it. Without
    one, a run that is going on is sent from its beginning: RUN_STARTED, MESSAGES_SNAPSHOT, then its events.
    """
    last = request.headers.get("Last-Event-ID", "")
    return granted(request, following(_principal(request), ThreadId(thread_id), last, wanted.shape, wanted.until))


# -- attachments


@api.post(
    "/attachments",
    response={201: schemas.AttachmentOut, **_PROBLEMS, 413: schemas.Problem, 429: schemas.Problem},
    tags=["attachments"],
)
def keep_attachment(request: HttpRequest, file: File[UploadedFile]) -> Status[dict[str, Any]]:
    """Keep a file (multipart, `file`) for a message: name its `id` in a run's `attachments` within a day."""
    kept = attachments.keep(_user_id(request), file.name or "", file.read(), attachments.limits_of(_bounds()))
    return Status(201, attachments.describe(kept))


@api.get("/attachments/{attachment_id}", response={200: None, **_ONE_PROBLEMS}, tags=["attachments"])
def show_attachment(request: HttpRequest, attachment_id: AttachmentKey) -> HttpResponse:
    """The file, to save. It is never shown in place."""
    attachment, content = attachments.read(_user_id(request), attachment_id)
    response = HttpResponse(content, content_type=attachment.media_type)
    response["Content-Disposition"] = content_disposition_header(as_attachment=True, filename=attachment.name) or ""
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response["X-Content-Type-Options"] = "nosniff"
    response["Cross-Origin-Resource-Policy"] = "same-origin"
    return response


# -- runs


@api.post(
    "/agui/{agent}",
    response={200: None, **_COMMAND_PROBLEMS},
    tags=["runs"],
    openapi_extra=schemas.EVENT_STREAM,
)
def run_agui(request: HttpRequest, agent: AgentKey, body: RunAgentInput) -> HttpResponse:
    """AG-UI 1.0: say the last of `messages` in the thread, or answer an interrupt with `resume`, and follow the run
    until it ends. A thread that there is not is made.
    """
    principal, conversation = _principal(request), _conversation()
    thread_id = ThreadId(body.thread_id)
    call = agui.understand(agent, thread_id, body)
    if isinstance(call.command, RunStart) and not Thread.objects.owned(principal.identity.user_id).has(thread_id):
        thread = conversation.open_thread(principal.identity, agui.client_key(thread_id))
        call = agui.understand(agent, ThreadId(thread.pk), body)
    reply = orjson.loads(conversation.execute(principal.identity, call.command))
    if not reply["ok"]:
        raise _refusal(reply["error"])
    run_id = RunId(reply["result"]["run_id"])
    most = _bounds().stream_snapshot_bytes
    return granted(request, following_run(principal, run_id, call.wishes.when_left, most))


@api.post("/runs", response={201: schemas.StartedOut, 200: schemas.StartedOut, **_COMMAND_PROBLEMS}, tags=["runs"])
def start_run(request: HttpRequest, body: schemas.RunIn) -> Status[dict[str, Any]]:
    """Say something in a thread and have it answered; open tabs see it live. 200: this `id` was admitted before."""
    reply = orjson.loads(_conversation().execute(_identity(request), _run_start(body)))
    if not reply["ok"]:
        raise _refusal(reply["error"])
    replayed = reply.get("replayed", False)
    return Status(200 if replayed else 201, {**reply["result"], "replayed": replayed})


@api.get("/runs/{run_id}", response={200: schemas.RunOut, **_ONE_PROBLEMS}, tags=["runs"])
def show_run(request: HttpRequest, run_id: RunKey) -> dict[str, Any]:
    """One run: how far it is, how it ended, what it used."""
    return _conversation().describe_run(_identity(request), RunId(run_id))


@api.post("/runs/{run_id}/cancel", response={200: schemas.CancelOut, **_COMMAND_PROBLEMS}, tags=["runs"])
def cancel_run(request: HttpRequest, run_id: RunKey) -> dict[str, Any]:
    """Stop a run. One that has ended is a problem `run_finished`."""
    return _conversation().cancel_run(_identity(request), RunId(run_id))


# -- who asks


@api.get("/me", response={200: schemas.MeOut, **_PROBLEMS}, tags=["user"])
def show_me(request: HttpRequest) -> dict[str, Any]:
    """Who the call was made by."""
    user = _user(request)
    return {"id": str(user.pk), "name": identity_of(user).name, "username": user.get_username()}


@api.get("/agents", response={200: schemas.AgentsOut, **_PROBLEMS}, tags=["user"])
def list_agents(request: HttpRequest) -> dict[str, Any]:  # noqa: ARG001 - every user may use every agent
    """The agents that may be asked, the default first."""
    default = _conversation().default_agent
    agents = sorted(
        execution_config().services.agents.describe(), key=lambda agent: (agent.name != default, agent.name)
    )
    return {
        "agents": [{"name": agent.name, "title": agent.title, "description": agent.description} for agent in agents],
        "default": default,
    }


@api.get("/usage", response={200: schemas.UsageOut, **_PROBLEMS}, tags=["user"])
def show_usage(request: HttpRequest) -> dict[str, Any]:
    """What the user's own runs used, and what they may use in a day."""
    usage: dict[str, Any] = execution_config().services.runs.usage(_identity(request))
    return usage


# -- inside


def _user(request: HttpRequest) -> AbstractUser:
    user: object = getattr(request, "auth", None)  # ninja puts there what the access classes found
    assert isinstance(user, AbstractUser)
    return user


def _identity(request: HttpRequest) -> Identity:
    return identity_of(_user(request))


def _user_id(request: HttpRequest) -> UserId:
    return _identity(request).user_id


def _principal(request: HttpRequest) -> Principal:
    principal = principal_of(request)
    if principal is None:  # it was there a moment ago, when the call was let in
        raise AuthenticationError
    return principal


def _conversation() -> Conversation:
    conversation = execution_config().services.conversation
    assert isinstance(conversation, Conversation)
    return conversation


def _bounds() -> Any:
    return execution_config().services.configuration


def _run_start(body: schemas.RunIn) -> RunStart:
    """The body as the command that the socket knows, checked by the same code."""
    bounds = _bounds()
    limits = Limits(
        frame_bytes=bounds.frame_bytes,
        event_bytes=bounds.event_bytes,
        text_bytes=bounds.text_bytes,
        attachments=bounds.attachments_per_run,
        runs=bounds.open_runs_per_user,
    )
    fields = {"id": new_id(), **body.model_dump(mode="json", exclude_none=True), "type": "run.start"}
    try:
        command = decode(orjson.dumps(fields).decode(), limits)
    except MalformedFrame as malformed:
        too_large = malformed.close_code is CloseCode.TOO_LARGE
        code = ErrorCode.INPUT_TOO_LARGE if too_large else ErrorCode.BAD_REQUEST
        raise Refusal(code, malformed.message) from None
    if isinstance(command, RefusedCommand):
        raise command.refusal
    assert isinstance(command, RunStart)
    return command


def _refusal(error: dict[str, Any]) -> Refusal:
    return Refusal(ErrorCode(error["code"]), error["message"], error.get("details", {}), error.get("retry_after_s"))
