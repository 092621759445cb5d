"""Refusals and failures as HTTP: `application/problem+json` (RFC 9457) with the same `code` as on the socket.

A problem says what was wrong and what is accepted. It repeats nothing of the request, and never a stack trace.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

import orjson
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.http.request import UnreadablePostError
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from apps.execution.apps import ServicesNotOpen
from apps.vocabulary import ErrorCode, Refusal, new_id

logger = logging.getLogger(__name__)

CONTENT_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 5.0  # where a limit was met and nobody knows better

STATUS: Final[Mapping[ErrorCode, HTTPStatus]] = MappingProxyType(
    {
        ErrorCode.BAD_REQUEST: HTTPStatus.BAD_REQUEST,
        ErrorCode.UNKNOWN_COMMAND: HTTPStatus.BAD_REQUEST,
        ErrorCode.AGENT_UNKNOWN: HTTPStatus.BAD_REQUEST,
        ErrorCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.ID_REUSED: HTTPStatus.CONFLICT,
        ErrorCode.THREAD_BUSY: HTTPStatus.CONFLICT,
        ErrorCode.RUN_FINISHED: HTTPStatus.CONFLICT,
        ErrorCode.ALREADY_DECIDED: HTTPStatus.CONFLICT,
        ErrorCode.INPUT_TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        ErrorCode.QUEUE_FULL: HTTPStatus.TOO_MANY_REQUESTS,
        ErrorCode.TOO_MANY_RUNS: HTTPStatus.TOO_MANY_REQUESTS,
        ErrorCode.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
        ErrorCode.QUOTA_EXCEEDED: HTTPStatus.TOO_MANY_REQUESTS,
        ErrorCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
        ErrorCode.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
    }
)


def problem(
    status: HTTPStatus, code: str, detail: str, details: Any = None, retry_after_s: float | None = None
) -> HttpResponse:
    """One problem as a response. `details` holds what a program may want to know besides."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "code": code,
        "detail": detail,
    }
    if details:
        body["details"] = details
    response = HttpResponse(orjson.dumps(body), status=status, content_type=CONTENT_TYPE)
    if status is HTTPStatus.TOO_MANY_REQUESTS and retry_after_s is None:
        retry_after_s = RETRY_AFTER_S
    if retry_after_s is not None:
        response["Retry-After"] = str(math.ceil(retry_after_s))
    if status is HTTPStatus.UNAUTHORIZED:
        response["WWW-Authenticate"] = "Bearer"
    return response


def refused(refusal: Refusal) -> HttpResponse:
    """A refusal with the status of its code."""
    return problem(STATUS[refusal.code], refusal.code, refusal.message, dict(refusal.details), refusal.retry_after_s)


def not_allowed(response: HttpResponse) -> HttpResponse:
    """A 405 as a problem, with the methods that are allowed."""
    allowed = ", ".join(sorted(response["Allow"].split(", ")))
    answer = problem(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", f"this address takes: {allowed}")
    answer["Allow"] = allowed
    return answer


def install(api: NinjaAPI) -> None:
    """Answer everything that can be raised inside of a call with a problem."""
    api.add_exception_handler(Refusal, _on_refusal)
    api.add_exception_handler(AuthenticationError, _on_no_user)
    api.add_exception_handler(HttpError, _on_http_error)
    api.add_exception_handler(ValidationError, _on_invalid)
    api.add_exception_handler(Http404, _on_missing)
    api.add_exception_handler(RequestDataTooBig, _on_too_big)
    api.add_exception_handler(SuspiciousOperation, _on_unreadable)
    api.add_exception_handler(UnreadablePostError, _on_unreadable)
    api.add_exception_handler(ServicesNotOpen, _on_closed)
    api.add_exception_handler(OperationalError, _on_no_database)
    api.add_exception_handler(InterfaceError, _on_no_database)
    api.add_exception_handler(Exception, _on_failure)


def _on_refusal(_request: HttpRequest, refusal: Refusal | type[Refusal]) -> HttpResponse:
    assert isinstance(refusal, Refusal)
    return refused(refusal)


def _on_no_user(_request: HttpRequest, _error: object) -> HttpResponse:
    detail = "log in, or send a valid token as `Authorization: Bearer TOKEN`"
    return problem(HTTPStatus.UNAUTHORIZED, "unauthenticated", detail)


def _on_http_error(_request: HttpRequest, error: HttpError | type[HttpError]) -> HttpResponse:
    assert isinstance(error, HttpError)
    if isinstance(error.__cause__, Refusal):  # the parser's, which ninja wraps
        return refused(error.__cause__)
    status = HTTPStatus(error.status_code)
    code = {400: "bad_request", 403: "forbidden", 404: "not_found"}.get(status, status.name.lower())
    return problem(status, code, error.message)


def _on_invalid(_request: HttpRequest, error: ValidationError | type[ValidationError]) -> HttpResponse:
    assert isinstance(error, ValidationError)
    fields = [{"where": _where(wrong["loc"]), "what": wrong["msg"]} for wrong in error.errors]
    return problem(HTTPStatus.BAD_REQUEST, "bad_request", "the request does not hold what it must", fields)


def _where(place: Sequence[str | int]) -> str:
    """Where in the request, as its sender knows it: ninja puts the name of our parameter behind `body` and `file`."""
    kind, *inside = place
    names = [kind, *inside[1:]] if kind in {"body", "file"} else [kind, *inside]
    return ".".join(map(str, names))[:200]


def _on_missing(_request: HttpRequest, _error: object) -> HttpResponse:
    return problem(HTTPStatus.NOT_FOUND, "not_found", "there is no such thing, or it is not yours")


def _on_too_big(_request: HttpRequest, _error: object) -> HttpResponse:
    return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "input_too_large", "the body is too large")


def _on_unreadable(_request: HttpRequest, _error: object) -> HttpResponse:
    return problem(HTTPStatus.BAD_REQUEST, "bad_request", "the request cannot be read")


def _on_closed(_request: HttpRequest, error: object) -> HttpResponse:
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", str(error), retry_after_s=RETRY_AFTER_S)


def _on_no_database(_request: HttpRequest, error: object) -> HttpResponse:
    logger.warning("the database could not take a call: %s", error)
    detail = "the database cannot be reached; try again"
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", detail, retry_after_s=1.0)


def _on_failure(_request: HttpRequest, error: Exception | type[Exception]) -> HttpResponse:
    assert isinstance(error, Exception)
    reference = new_id()
    logger.error("a call failed (reference %s)", reference, exc_info=error)
    detail = f"the server made a mistake; its reference is {reference}"
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", detail)
