"""Who a session or a token belongs to, and when that ends."""

import hashlib
from datetime import timedelta
from importlib import import_module

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from apps.chat.authentication import (
    SessionPrincipal,
    TokenPrincipal,
    authenticate,
    authenticate_bearer,
    identity_of,
    issue_token,
    no_longer_valid,
)
from apps.chat.handshake import BearerToken, NoCredentials, SessionCookie
from apps.chat.models import ApiToken
from apps.vocabulary import Identity

pytestmark = pytest.mark.django_db


def make_user(name="anna", **fields):
    return get_user_model().objects.create_user(name, password="secret-" + name, **fields)


def log_in(user):
    client = Client()
    client.force_login(user)
    return client, client.cookies["sessionid"].value


def by_session(user):
    client, key = log_in(user)
    principal = authenticate(SessionCookie(key))
    assert isinstance(principal, SessionPrincipal)
    return client, principal


def by_token(user, **fields):
    principal = authenticate(BearerToken(issue_token(user.pk, **fields)))
    assert isinstance(principal, TokenPrincipal)
    return principal


def test_a_session_belongs_to_the_user_who_logged_in():
    anna, _ = make_user("anna", first_name="Anna", last_name="Å"), make_user("bert")
    _, principal = by_session(anna)
    assert principal.identity == Identity(anna.pk, "Anna Å")
    assert no_longer_valid([principal]) == set()


def test_a_token_belongs_to_the_user_whom_it_was_issued_to():
    anna, bert = make_user("anna"), make_user("bert")
    assert by_token(anna).identity == Identity(anna.pk, "anna")
    assert authenticate_bearer(issue_token(bert.pk)) == bert
    assert no_longer_valid([by_token(anna), by_token(bert)]) == set()


def test_the_table_of_tokens_holds_no_token():
    token = issue_token(make_user().pk, "laptop")
    row = ApiToken.objects.get()
    assert row.token_hash == hashlib.sha256(token.encode()).hexdigest()
    assert token not in str(vars(row))
    assert row.name == "laptop"


def test_two_tokens_are_never_the_same():
    user = make_user()
    assert len({issue_token(user.pk) for _ in range(50)}) == 50


def test_nobody_is_let_in_with_nothing_or_with_nonsense():
    make_user()
    for credentials in (
        NoCredentials(),
        SessionCookie(""),
        SessionCookie("x"),
        SessionCookie("x" * 32),
        SessionCookie("x" * 1_048_576),
        SessionCookie("\x00" * 32),
        SessionCookie("é" * 32),
        BearerToken("x"),
        BearerToken("x" * 1_048_576),
    ):
        assert authenticate(credentials) is None
    assert authenticate_bearer("x") is None


def test_part_of_a_token_is_no_token():
    token = issue_token(make_user().pk)
    for wrong in (token[:-1], token[1:], token + "a", token.upper()):
        assert authenticate(BearerToken(wrong)) is None


def test_an_anonymous_session_is_nobody():
    client = Client()
    session = client.session
    session["theme"] = "dark"
    session.save()
    assert authenticate(SessionCookie(session.session_key)) is None


def test_looking_at_a_session_never_changes_it():
    user = make_user()
    _, principal = by_session(user)
    before = Session.objects.values_list().get()
    user.set_password("other")
    user.save()
    assert authenticate(SessionCookie(principal.session_key)) is None
    assert authenticate(SessionCookie("x" * 32)) is None
    assert Session.objects.values_list().get() == before


def test_a_disabled_user_is_not_let_in():
    user = make_user()
    _, key = log_in(user)
    token = issue_token(user.pk)
    get_user_model().objects.update(is_active=False)
    assert authenticate(SessionCookie(key)) is None
    assert authenticate(BearerToken(token)) is None
    assert authenticate_bearer(token) is None


def test_a_disabled_user_is_not_let_in_by_a_login_that_would_let_them_in(settings):
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.AllowAllUsersModelBackend"]
    user = make_user()
    _, key = log_in(user)
    assert authenticate(SessionCookie(key)) is not None
    get_user_model().objects.update(is_active=False)
    assert authenticate(SessionCookie(key)) is None


def test_a_session_by_a_way_of_logging_in_that_is_no_longer_offered_is_nobody(settings):
    _, key = log_in(make_user())
    settings.AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend"]
    assert authenticate(SessionCookie(key)) is None


def test_a_session_survives_a_new_secret_key_with_the_old_one_as_fallback(settings):
    user = make_user()
    _, principal = by_session(user)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another key " * 5
    assert no_longer_valid([principal]) == set()
    assert authenticate(SessionCookie(principal.session_key)) == principal
    settings.SECRET_KEY_FALLBACKS = []
    assert no_longer_valid([principal]) == {principal}


def log_out(client, principal, user):
    client.logout()


def end_session(client, principal, user):
    Session.objects.filter(session_key=principal.session_key).update(expire_date=timezone.now())


def change_password(client, principal, user):
    user.set_password("another")
    user.save()


def disable(client, principal, user):
    get_user_model().objects.filter(pk=user.pk).update(is_active=False)


def delete(client, principal, user):
    user.delete()


@pytest.mark.parametrize("event", [log_out, end_session, change_password, disable, delete])
def test_a_session_ends_when_it_is_ended_anywhere_and_for_that_user_alone(event):
    anna, bert = make_user("anna"), make_user("bert")
    client, principal = by_session(anna)
    _, other = by_session(bert)
    event(client, principal, anna)
    assert no_longer_valid([principal, other]) == {principal}


def test_logging_out_of_one_browser_leaves_the_other_browser_in():
    user = make_user()
    client, first = by_session(user)
    _, second = by_session(user)
    client.logout()
    assert no_longer_valid([first, second]) == {first}


def revoke(principal, user):
    ApiToken.objects.filter(pk=principal.token_id).update(revoked_at=timezone.now())


def expire(principal, user):
    ApiToken.objects.filter(pk=principal.token_id).update(expires_at=timezone.now())


@pytest.mark.parametrize("event", [revoke, expire, lambda p, u: disable(None, p, u), lambda p, u: delete(None, p, u)])
def test_a_token_ends_when_it_or_its_user_does(event):
    anna, bert = make_user("anna"), make_user("bert")
    principal, other = by_token(anna), by_token(bert)
    event(principal, anna)
    assert no_longer_valid([principal, other]) == {principal}


def test_a_token_that_will_expire_is_valid_until_then():
    user = make_user()
    soon = by_token(user, expires_at=timezone.now() + timedelta(hours=1))
    assert no_longer_valid([soon]) == set()
    assert authenticate(BearerToken(issue_token(user.pk, expires_at=timezone.now()))) is None


def test_a_changed_password_does_not_end_a_token():
    user = make_user()
    principal = by_token(user)
    change_password(None, principal, user)
    assert no_longer_valid([principal]) == set()


def test_all_connections_are_looked_at_with_three_queries_however_many_there_are(django_assert_num_queries):
    principals = []
    for number in range(20):
        user = make_user(f"user{number}")
        principals += [by_session(user)[1], by_token(user)]
    with django_assert_num_queries(3):
        assert no_longer_valid(principals) == set()
    with django_assert_num_queries(0):
        assert no_longer_valid([]) == set()


@pytest.mark.parametrize("engine", ["cached_db", "cache", "signed_cookies", "file"])
def test_sessions_may_be_kept_wherever_django_keeps_them(settings, engine, tmp_path):
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    settings.SESSION_FILE_PATH = str(tmp_path)
    _, principal = by_session(make_user())
    assert no_longer_valid([principal]) == set()
    if engine == "signed_cookies":
        return  # there is nothing on the server that a logout could remove
    import_module(settings.SESSION_ENGINE).SessionStore(principal.session_key).delete()
    assert no_longer_valid([principal]) == {principal}


def test_the_use_of_a_token_is_noted_at_most_once_a_minute(django_assert_num_queries):
    user = make_user()
    token = issue_token(user.pk)
    assert ApiToken.objects.get().last_used_at is None
    authenticate_bearer(token)
    first = ApiToken.objects.get().last_used_at
    assert first is not None
    with django_assert_num_queries(2):
        authenticate_bearer(token)
    ApiToken.objects.update(last_used_at=first - timedelta(minutes=2))
    authenticate_bearer(token)
    assert ApiToken.objects.get().last_used_at >= first


def test_a_principal_shows_no_secret_and_can_be_a_key():
    _, principal = by_session(make_user())
    assert principal.session_key not in repr(principal)
    assert principal.auth_hash not in repr(principal)
    assert len({principal, authenticate(SessionCookie(principal.session_key))}) == 1


def test_a_user_without_a_full_name_is_called_by_the_username():
    assert identity_of(make_user("anna")).name == "anna"
