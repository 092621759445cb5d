"""Who is it, and are they still? Session keys and bearer tokens become a Principal, or nobody.

A socket outlives the request that opened it by hours, so rights are looked at again all the time:
`no_longer_valid` answers for all connections of a process with a fixed number of queries. Nothing here
writes to a session. Django's own `get_user` does (it deletes or renews it), and a socket cannot give a
renewed cookie to the browser.

All functions are synchronous and use the ORM.
"""

import hashlib
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib import import_module
from typing import Final

from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
    load_backend,
)
from django.contrib.auth.models import AbstractUser
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from apps.chat.handshake import BearerToken, Credentials, NoCredentials, SessionCookie
from apps.chat.models import ApiToken
from apps.vocabulary import Identity, UserId

LEAK_MARK: Final = "turnout_"  # lets secret scanners and people recognise a leaked one
TOKEN_BYTES: Final = 32  # random; at this size a plain SHA-256 is as good as a slow one
LAST_USED_RESOLUTION: Final = timedelta(minutes=1)  # a write for every use would be a write for every call


@dataclass(frozen=True, slots=True)
class SessionPrincipal:
    """A person in a browser. Valid while the session lives and the password stays what it was."""

    identity: Identity
    session_key: str = field(repr=False)
    auth_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenPrincipal:
    """A program with a bearer token. Valid until the token is revoked or expires."""

    identity: Identity
    token_id: int


Principal = SessionPrincipal | TokenPrincipal


def identity_of(user: AbstractUser) -> Identity:
    """The identity that every other room knows a user by."""
    return Identity(UserId(user.pk), user.get_full_name() or user.get_username())


def authenticate(credentials: Credentials) -> Principal | None:
    """Who the credentials belong to; None if that is nobody who may be here now."""
    match credentials:
        case SessionCookie(key):
            return _by_session(key)
        case BearerToken(token):
            return _by_token(token)
        case NoCredentials():
            return None


def authenticate_bearer(token: str) -> AbstractUser | None:
    """The user of a bearer token, for HTTP calls; None if the token or its user is not valid (any more)."""
    row = _token_row(token)
    return None if row is None else _active_users([row.user_id]).get(row.user_id)


def principal_of(request: HttpRequest) -> Principal | None:
    """Who a call was made by, as what outlives the call is watched by: `no_longer_valid` knows when that ends."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return authenticate(BearerToken(token.strip()))
    return authenticate(SessionCookie(request.session.session_key)) if request.session.session_key else None


def issue_token(user_id: UserId, name: str = "", expires_at: datetime | None = None) -> str:
    """Make a bearer token. This is the only time that anyone sees it: the database has its hash."""
    token = LEAK_MARK + secrets.token_urlsafe(TOKEN_BYTES)
    ApiToken.objects.create(token_hash=_hash(token), user_id=user_id, name=name, expires_at=expires_at)
    return token


def no_longer_valid(principals: Collection[Principal]) -> set[Principal]:
    """Those who must leave: logged out, session expired, disabled, deleted, password changed, token ended.

    One query each for users, sessions and tokens, however many principals there are. (Sessions outside of
    the database are loaded one by one from where they are.)
    """
    users = _active_users({principal.identity.user_id for principal in principals})
    auth_hashes = {user_id: _auth_hashes(user) for user_id, user in users.items()}
    by_session = [principal for principal in principals if isinstance(principal, SessionPrincipal)]
    by_token = [principal for principal in principals if isinstance(principal, TokenPrincipal)]
    sessions = _living_sessions(by_session)
    tokens = _valid_tokens(by_token)
    staying: set[Principal] = {
        principal
        for principal in by_session
        if principal.session_key in sessions and principal.auth_hash in auth_hashes.get(principal.identity.user_id, ())
    }
    staying.update(
        principal for principal in by_token if principal.token_id in tokens and principal.identity.user_id in users
    )
    return set(principals) - staying


def _by_session(key: str) -> SessionPrincipal | None:
    session = _session_store(key)
    backend_path = session.get(BACKEND_SESSION_KEY)
    if SESSION_KEY not in session or backend_path not in settings.AUTHENTICATION_BACKENDS:
        return None
    user = load_backend(backend_path).get_user(session[SESSION_KEY])
    auth_hash = session.get(HASH_SESSION_KEY, "")
    if not isinstance(user, AbstractUser) or not user.is_active:
        return None
    if not any(constant_time_compare(auth_hash, valid) for valid in _auth_hashes(user)):
        return None
    return SessionPrincipal(identity_of(user), key, auth_hash)


def _by_token(token: str) -> TokenPrincipal | None:
    row = _token_row(token)
    user = None if row is None else _active_users([row.user_id]).get(row.user_id)
    return None if row is None or user is None else TokenPrincipal(identity_of(user), row.pk)


def _token_row(token: str) -> ApiToken | None:
    now = timezone.now()
    row = ApiToken.objects.valid(now).filter(token_hash=_hash(token)).first()
    if row is not None and (row.last_used_at is None or row.last_used_at < now - LAST_USED_RESOLUTION):
        ApiToken.objects.filter(pk=row.pk).update(last_used_at=now)
    return row


def _valid_tokens(principals: Collection[TokenPrincipal]) -> set[int]:
    if not principals:
        return set()
    known = ApiToken.objects.valid(timezone.now()).filter(pk__in={row.token_id for row in principals})
    return set(known.values_list("pk", flat=True))


def _living_sessions(principals: Collection[SessionPrincipal]) -> set[str]:
    if not principals:
        return set()
    store = type(_session_store(None))
    if hasattr(store, "get_model_class"):
        keys = {principal.session_key for principal in principals}
        living = store.get_model_class().objects.filter(session_key__in=keys, expire_date__gt=timezone.now())
        return set(living.values_list("session_key", flat=True))
    return {
        principal.session_key
        for principal in principals
        if str(_session_store(principal.session_key).get(SESSION_KEY)) == str(principal.identity.user_id)
    }


def _active_users(user_ids: Iterable[int]) -> dict[int, AbstractUser]:
    return {user.pk: user for user in get_user_model().objects.filter(pk__in=user_ids, is_active=True)}


def _auth_hashes(user: AbstractUser) -> tuple[str, ...]:
    """What a session of this user may hold: made with the key of today, or one of SECRET_KEY_FALLBACKS."""
    return (user.get_session_auth_hash(), *user.get_session_auth_fallback_hash())


def _session_store(key: str | None) -> SessionBase:
    store: SessionBase = import_module(settings.SESSION_ENGINE).SessionStore(key)
    return store


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
