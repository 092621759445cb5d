"""Where an event stream begins, and handing it over to who streams it. Synchronous: it looks into rows.

The position is read before anybody looks for a run: a run that begins between the two lies behind the position, and is
seen; the other way round its beginning would be missed.
"""

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse

from apps.agents.base import TokenCount
from apps.chat import agui
from apps.chat.authentication import Principal
from apps.chat.models import Thread
from apps.chat.snapshot import read_snapshot
from apps.chat.sse import Following, Shape, Until, WhenLeft, parse_event_id
from apps.chat.streaming import OFFER, StreamOffer
from apps.execution import lifecycle
from apps.execution.apps import ServicesNotOpen
from apps.execution.models import Run
from apps.execution.states import RunStatus
from apps.realtime.reader import position_before_run, read_head
from apps.vocabulary import MessageId, RunId, ThreadId, UserId


def following(principal: Principal, thread_id: ThreadId, last_event_id: str, shape: Shape, until: Until) -> Following:
    """A stream of the thread: behind `last_event_id`, else from the beginning of the run that is going on, else from
    now. Raises Refusal(not_found, bad_request).
    """
    user_id = principal.identity.user_id
    Thread.objects.owned(user_id).get(thread_id)
    if last_event_id:
        after, behind = parse_event_id(last_event_id)
        return Following(principal=principal, thread_id=thread_id, after=after, behind=behind, shape=shape, until=until)
    head = read_head(user_id)
    running = _running(user_id, thread_id)
    begun = None if running is None else position_before_run(user_id, running)
    return Following(
        principal=principal,
        thread_id=thread_id,
        after=begun or head,
        run_id=running if begun else None,
        shape=shape,
        until=until,
        rebuilt=shape is Shape.AGUI,
    )


def following_run(principal: Principal, run_id: RunId, when_left: WhenLeft, max_bytes: int) -> Following:
    """A stream of one run, for who started it: from its beginning to its end.

    Of a run whose events are trimmed, what it answered is told in at most `max_bytes` of messages.
    """
    user_id = principal.identity.user_id
    head = read_head(user_id)
    run = Run.objects.owned(user_id).get(pk=run_id)
    before = position_before_run(user_id, run_id)
    return Following(
        principal=principal,
        thread_id=run.thread,
        after=before or head,
        run_id=run_id,
        until=Until.RUN_END,
        echoes_input=False,
        when_left=when_left,
        recalled=() if before else _recalled(run, max_bytes),
    )


def granted(request: HttpRequest, stream: Following) -> HttpResponse:
    """The view's answer, which no client sees: the application in front of Django streams instead.

    Raises ServicesNotOpen where there is none: under a server that is not ours and speaks no lifespan.
    """
    scope = getattr(request, "scope", {})
    offer = (scope.get("extensions") or {}).get(OFFER)
    if not isinstance(offer, StreamOffer):
        raise ServicesNotOpen
    offer.following = stream
    return HttpResponse(status=204)


def _recalled(run: Run, max_bytes: int) -> tuple[Mapping[str, Any], ...]:
    """How a run ended whose events are no longer kept: a client that asks for it again is told that much."""
    usage = TokenCount(run.input_tokens, run.output_tokens)
    match RunStatus(run.status):
        case RunStatus.SUCCEEDED:
            ending = lifecycle.succeeded(run.thread, run.run_id, usage)
        case RunStatus.CANCELLED:
            ending = lifecycle.cancelled(run.thread, run.run_id, usage)
        case status if status.is_open:
            return ()
        case _:
            code = lifecycle.RunErrorCode(run.error_code or lifecycle.RunErrorCode.AGENT_ERROR)
            ending = lifecycle.failed(code, "This run failed a while ago.", usage)
    begun = lifecycle.started(run.thread, run.run_id, run.message, run.parent)
    view = read_snapshot(run.owner, run.thread).view
    last = view.answers(run.run_id)[-1].message_id if view.answers(run.run_id) else MessageId(run.message_id)
    said = agui.messages_snapshot(view, last, max_bytes)
    wire = [event.model_dump(mode="json", by_alias=True) for event in (begun, ending.event)]
    return wire[0], said, wire[1]


def _running(user_id: UserId, thread_id: ThreadId) -> RunId | None:
    run = Run.objects.owned(user_id).running().filter(thread_id=thread_id).first()
    return None if run is None else run.run_id
