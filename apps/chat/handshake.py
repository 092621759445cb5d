"""May this handshake become a socket, and by which credentials? Pure: reads headers and settings, no row.

Browsers send cookies along with any page's WebSocket, and the same-origin policy does not hold for sockets:
without the check of `Origin` every site on the web could talk in the name of whoever visits it. `Origin` is
compared as a whole (scheme, host and port), where Channels' validator compares hosts only. A program sends
a bearer token and needs no `Origin`.

Headers that stand twice are refused, not resolved: the proxy in front may have checked the other one.
Daphne joins them with a comma before anyone can see that there were two, so a comma where no single header
has one counts as two.
"""

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.http import parse_cookie
from django.utils.http import is_same_domain

from apps.realtime.protocol import SUBPROTOCOL

# What a browser serialises: lower case, no user, no path, no default port.
_ORIGIN = re.compile(r"(https?)://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?", re.ASCII)
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.ASCII | re.IGNORECASE)
_SAYS_BEARER = re.compile(r"(^|[\s,])bearer\s", re.ASCII | re.IGNORECASE)
_TOKEN_IN_QUERY = re.compile(rb"(^|&)[a-z_-]*(token|authorization|bearer)=", re.IGNORECASE)
_ADDRESS_LENGTH = 64  # characters; IPv6 with a zone, and more is none
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class HandshakeRefused(Exception):  # noqa: N818 - a refusal is an answer, not a fault
    """The socket is refused before it is accepted (HTTP 403). The text is for our log; no client sees it."""


@dataclass(frozen=True, slots=True)
class SessionCookie:
    """A browser's credentials: the key of a Django session."""

    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BearerToken:
    """A program's credentials."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NoCredentials:
    """Nobody in particular: accepted, told so, and closed with 4401."""


Credentials = SessionCookie | BearerToken | NoCredentials


def check_handshake(scope: Mapping[str, Any]) -> Credentials:
    """What the client brings to prove who it is; a token makes it ignore cookies. Raises HandshakeRefused."""
    if SUBPROTOCOL not in scope.get("subprotocols", ()):
        raise HandshakeRefused(f"the client does not offer the subprotocol {SUBPROTOCOL}")
    if _TOKEN_IN_QUERY.search(scope.get("query_string", b"")):
        raise HandshakeRefused("a token belongs into the Authorization header; addresses end up in logs")
    headers = scope["headers"]
    origin = _single(headers, b"origin")
    token = _bearer_token(_single(headers, b"authorization"))
    cookies = _single(headers, b"cookie")
    if origin is not None and not _is_trusted(origin, scope):
        raise HandshakeRefused("the Origin is not one of this server's or of CSRF_TRUSTED_ORIGINS")
    if token is not None:
        return BearerToken(token)
    if cookies is None:
        return NoCredentials()
    if origin is None:
        raise HandshakeRefused("cookies without an Origin")
    return _session_cookie(cookies)


def client_address(scope: Mapping[str, Any]) -> str | None:
    """Where the client sits, as far as that can be believed; None where only the proxy's own address is known.

    Every proxy appends to `X-Forwarded-For` whom it was asked by, and anybody can send such a header to the first
    one: so it is read from the right, past as many as PROXY_HOPS says that there are, and not at all without.
    """
    hops: int = settings.PROXY_HOPS
    if hops:
        forwarded = b",".join(value for key, value in scope["headers"] if key.lower() == b"x-forwarded-for")
        addresses = [text.strip() for text in forwarded.decode("latin1").split(",")]
        return addresses[-hops][:_ADDRESS_LENGTH] or None if len(addresses) >= hops else None
    if settings.BEHIND_TLS_PROXY:
        return None
    client = scope.get("client")
    return client[0] if client else None


def _single(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    values = [value for key, value in headers if key.lower() == name]
    if len(values) > 1:
        raise HandshakeRefused(f"the header {name.decode()} stands {len(values)} times")
    return values[0].decode("latin1") if values else None


def _bearer_token(authorization: str | None) -> str | None:
    """The token of a bearer header; None for other schemes, which are for a proxy in front of us."""
    if authorization is None or _SAYS_BEARER.search(authorization) is None:
        return None
    match = _BEARER.fullmatch(authorization.strip(" \t"))
    if match is None:
        raise HandshakeRefused("the Authorization header is not one bearer token")
    return match[1]


def _session_cookie(cookies: str) -> Credentials:
    # No session key holds a comma and no cookie's name follows one: such a comma joined two Cookie headers.
    name = settings.SESSION_COOKIE_NAME
    named = [part for part in re.split("[;,]", cookies) if part.partition("=")[0].strip() == name]
    if not named:
        return NoCredentials()
    key = parse_cookie(cookies).get(name, "")
    if len(named) > 1 or not key or "," in key:
        raise HandshakeRefused("the session cookie is not given exactly once")
    return SessionCookie(key)


def _is_trusted(origin: str, scope: Mapping[str, Any]) -> bool:
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return False
    return origin == _own_origin(scope) or _is_configured(origin, match[1], match[2] + (match[3] or ""))


def _is_configured(origin: str, scheme: str, address: str) -> bool:
    """By CSRF_TRUSTED_ORIGINS, read as Django does: `https://*.example.org` is any host below it."""
    for trusted in settings.CSRF_TRUSTED_ORIGINS:
        trusted_scheme, _, trusted_address = trusted.partition("://")
        if origin == trusted:
            return True
        is_pattern = trusted_address.startswith("*") and trusted_scheme == scheme
        if is_pattern and is_same_domain(address, trusted_address.lstrip("*")):
            return True
    return False


def _own_origin(scope: Mapping[str, Any]) -> str | None:
    """The origin of this server's own pages as this client reaches it; None when the host is not in
    ALLOWED_HOSTS.

    Django's request answers both halves, so that proxy headers count here when its settings say so, and
    only then.
    """
    scheme = "https" if scope.get("scheme") == "wss" else "http"
    headers = [(name, value) for name, value in scope["headers"] if not name.lower().startswith(b"content-")]
    as_http = {"method": "GET", "scheme": scheme, "headers": headers, "query_string": b""}
    request = ASGIRequest({**scope, **as_http}, io.BytesIO())
    try:
        host = request.get_host().lower()
    except DisallowedHost:
        return None
    scheme = request.scheme or scheme
    return f"{scheme}://{host.removesuffix(_DEFAULT_PORTS[scheme])}"
