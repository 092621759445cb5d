"""How HTTP calls come in and go out: who asks, JSON both ways, problems, and no caching of anything."""

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any, Final

import orjson
from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, URLResolver, re_path
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI
from ninja.errors import HttpError
from ninja.openapi.schema import OpenAPISchema
from ninja.operation import Operation
from ninja.parser import Parser
from ninja.renderers import BaseRenderer
from ninja.security import APIKeyCookie, HttpBearer
from ninja.utils import check_csrf

from apps.chat import problems
from apps.chat.authentication import authenticate_bearer
from apps.vocabulary import ErrorCode, Refusal

PRIVATE: Final = "private, no-store"

View = Callable[..., HttpResponse]


class TokenAccess(HttpBearer):
    """`Authorization: Bearer TOKEN`."""

    def authenticate(self, request: HttpRequest, token: str) -> AbstractUser | None:  # noqa: ARG002 - ninja's signature
        """The token's user, or None."""
        return authenticate_bearer(token)


class SessionAccess(APIKeyCookie):
    """The browser's session; a call that changes something carries the CSRF token."""

    param_name = settings.SESSION_COOKIE_NAME

    def __call__(self, request: HttpRequest) -> AbstractUser | None:
        """The session's user, or None. Raises HttpError(403) without CSRF token."""
        # A token that was sent speaks alone: an invalid one must not turn into whoever the cookie belongs to.
        if "Authorization" in request.headers or not isinstance(request.user, AbstractUser):
            return None
        if check_csrf(request) is not None:
            raise HttpError(HTTPStatus.FORBIDDEN, "the CSRF token is missing or wrong; send it as `X-CSRFToken`")
        return request.user

    def authenticate(self, request: HttpRequest, key: str | None) -> AbstractUser | None:  # noqa: ARG002 - ninja's signature
        """Unused: `__call__` decides. Ninja asks for it."""
        raise TypeError("SessionAccess is called, not asked for a key")


class StrictJson(Parser):
    """A body is JSON and says so. A number that is none, a lone surrogate or a very deep value is refused."""

    def parse_body(self, request: HttpRequest) -> Any:
        """The body's value. Raises Refusal, which ninja wraps in an HttpError."""
        if request.content_type != "application/json":
            raise Refusal(ErrorCode.BAD_REQUEST, "a body is JSON, sent as Content-Type: application/json")
        try:
            return orjson.loads(request.body)
        except orjson.JSONDecodeError:
            raise Refusal(ErrorCode.BAD_REQUEST, "the body is not JSON") from None


class FastJson(BaseRenderer):
    """Answers as JSON in UTF-8."""

    media_type = "application/json"

    def render(self, request: HttpRequest, data: Any, *, response_status: int) -> bytes:  # noqa: ARG002 - ninja's signature
        """The bytes of the answer."""
        return orjson.dumps(data)


class PrivateApi(NinjaAPI):
    """A ninja API whose every answer, errors and unknown addresses included, is a problem or private JSON."""

    def get_openapi_operation_id(self, operation: Operation) -> str:
        """The function's name: it is the call's name for every client that is made from the document."""
        return operation.view_func.__name__

    def get_openapi_schema(
        self, *, path_prefix: str | None = None, path_params: dict[str, Any] | None = None
    ) -> OpenAPISchema:
        """As ninja's, with the media type that problems have."""
        document = super().get_openapi_schema(path_prefix=path_prefix, path_params=path_params)
        for calls in document["paths"].values():
            for call in calls.values():
                for status, answer in call["responses"].items():
                    if int(status) >= HTTPStatus.BAD_REQUEST:
                        answer["content"] = {problems.CONTENT_TYPE: answer["content"]["application/json"]}
        return document

    @property
    def urls(self) -> tuple[list[URLPattern | URLResolver], str, str]:
        """As ninja's, with an answer for every other address below it."""
        patterns, app_name, namespace = super().urls
        for pattern in patterns:
            assert isinstance(pattern, URLPattern)
            pattern.callback = _private(pattern.callback)
        return [*patterns, re_path("^.*$", _private(_unknown_address))], app_name, namespace


def _private(view: View) -> View:
    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            response = view(request, *args, **kwargs)
        except Http404:  # ninja's own root, which exists to be reversed only
            response = _unknown_address(request)
        if response.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            response = problems.not_allowed(response)
        response["Cache-Control"] = PRIVATE
        return response

    return csrf_exempt(answer)  # SessionAccess checks it, where a session is used


def _unknown_address(_request: HttpRequest) -> HttpResponse:
    return problems.problem(HTTPStatus.NOT_FOUND, "not_found", "the API has no such address")
