"""Which handshakes become a socket, and what they bring."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.chat.handshake import (
    BearerToken,
    HandshakeRefused,
    NoCredentials,
    SessionCookie,
    check_handshake,
    client_address,
)

KEY = "k" * 32


@pytest.fixture(autouse=True)
def hosts(settings):
    settings.ALLOWED_HOSTS = ["chat.example", "127.0.0.1", "[::1]"]
    settings.CSRF_TRUSTED_ORIGINS = ["https://www.example", "https://*.apps.example", "https://*.ports.example:444"]


def scope(*headers, subprotocols=("turnout.v1",), scheme="ws", query=b"", host="chat.example"):
    named = [(name.encode("latin1"), value.encode("latin1")) for name, value in headers]
    return {
        "type": "websocket",
        "path": "/ws/chat/",
        "scheme": scheme,
        "query_string": query,
        "headers": [(b"host", host.encode()), *named],
        "subprotocols": list(subprotocols),
    }


def credentials(*headers, **options):
    return check_handshake(scope(*headers, **options))


def refused(*headers, **options):
    with pytest.raises(HandshakeRefused) as caught:
        check_handshake(scope(*headers, **options))
    return str(caught.value)


COOKIE = ("cookie", f"sessionid={KEY}")
OWN = ("origin", "http://chat.example")
TOKEN = ("authorization", "Bearer abc")


def test_a_browser_comes_with_its_session_and_an_origin_of_ours():
    assert credentials(COOKIE, OWN) == SessionCookie(KEY)
    assert credentials(("cookie", f"theme=dark; sessionid={KEY}; x=1"), OWN) == SessionCookie(KEY)


def test_a_program_comes_with_a_token_and_needs_no_origin():
    assert credentials(TOKEN) == BearerToken("abc")
    assert credentials(("authorization", "bearer  a-b._~+/c==")) == BearerToken("a-b._~+/c==")


def test_with_a_token_the_cookie_is_ignored():
    assert credentials(TOKEN, COOKIE) == BearerToken("abc")
    assert credentials(TOKEN, COOKIE, OWN) == BearerToken("abc")


def test_who_brings_nothing_is_nobody_but_no_intruder():
    assert credentials() == NoCredentials()
    assert credentials(OWN, ("cookie", "theme=dark")) == NoCredentials()


def test_cookies_without_an_origin_are_refused():
    refused(COOKIE)
    refused(("cookie", "theme=dark"))


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "http://chat.example.evil.com",
        "http://evil.com/http://chat.example",
        "http://chat.example:8000",
        "http://chat.example:80",
        "https://chat.example",
        "ws://chat.example",
        "http://user@chat.example",
        "http://chat.example@evil.com",
        "http://CHAT.example",
        "HTTP://chat.example",
        "http://chat.example.",
        "http://chat.example/",
        "http://chat.example?",
        "http://ch\xe4t.example",
        "http://xn--cht-qla.example",
        " http://chat.example",
        "http://chat.example\x0b",
        "http://chat.example\x85",
        "http://chat.example,http://chat.example",
        "http://chat.example, http://chat.example",
        "http://*.apps.example",
        "https://apps.example.evil.com",
        "https://evilapps.example",
        "http://a.apps.example",
        "https://a.apps.example:8443",
        "https://user@a.apps.example",
        "https://a.apps.example@evil.example",
        "https://a.apps.example/evil.example",
        "https://a.ports.example",
        "*",
        "http://",
        "http://[::1]",
    ],
)
def test_any_origin_but_a_trusted_one_is_refused_whoever_asks(origin):
    refused(COOKIE, ("origin", origin))
    refused(TOKEN, ("origin", origin))
    refused(("origin", origin))


@pytest.mark.parametrize("origin", ["https://www.example", "https://a.apps.example", "https://b.a.apps.example"])
def test_origins_that_the_settings_trust_are_let_in(origin):
    assert credentials(COOKIE, ("origin", origin)) == SessionCookie(KEY)
    assert credentials(COOKIE, ("origin", "https://a.ports.example:444")) == SessionCookie(KEY)


@pytest.mark.parametrize(
    ("host", "scheme", "origin"),
    [
        ("127.0.0.1:8000", "ws", "http://127.0.0.1:8000"),
        ("127.0.0.1:80", "ws", "http://127.0.0.1"),
        ("CHAT.example:443", "wss", "https://chat.example"),
        ("chat.example:80", "wss", "https://chat.example:80"),
        ("[::1]:8000", "ws", "http://[::1]:8000"),
    ],
)
def test_our_own_pages_are_trusted_at_the_address_that_they_were_loaded_from(host, scheme, origin):
    assert credentials(COOKIE, ("origin", origin), host=host, scheme=scheme) == SessionCookie(KEY)


def test_a_host_that_is_not_ours_trusts_nobody():
    refused(COOKIE, ("origin", "http://evil.example"), host="evil.example")
    refused(COOKIE, ("origin", "http://evil.example"), host="chat.example,evil.example")
    refused(COOKIE, ("origin", "http://evil.example"), ("host", "evil.example"))


@pytest.mark.parametrize(
    "spoofed",
    [
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "444"),
        ("x_forwarded_host", "evil.example"),
        ("daphne-root-path", "/evil"),
        ("x_user", "admin"),
    ],
)
def test_headers_of_a_proxy_that_is_not_there_change_nothing(spoofed):
    assert credentials(spoofed, COOKIE, OWN) == SessionCookie(KEY)
    refused(spoofed, COOKIE, ("origin", "http://evil.example"))
    refused(spoofed, COOKIE, ("origin", "https://chat.example"))


def test_behind_a_proxy_that_the_settings_name_its_word_counts(settings):
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    https = ("origin", "https://chat.example")
    assert credentials(("x-forwarded-proto", "https"), COOKIE, https) == SessionCookie(KEY)
    refused(("x-forwarded-proto", "http"), COOKIE, https)
    refused(("x-forwarded-proto", "http,https"), COOKIE, https)
    refused(("x_forwarded_proto", "https"), COOKIE, https)


@pytest.mark.parametrize(
    "headers",
    [
        (COOKIE, COOKIE, OWN),
        (COOKIE, ("Cookie", "theme=dark"), OWN),
        (COOKIE, OWN, OWN),
        (TOKEN, TOKEN),
        (TOKEN, ("Authorization", "Basic eA==")),
    ],
)
def test_a_header_that_stands_twice_is_refused(headers):
    assert "2 times" in refused(*headers)


@pytest.mark.parametrize(
    "cookies",
    [
        f"sessionid={KEY},sessionid={'j' * 32}",
        f"sessionid={KEY}, sessionid={KEY}",
        f"theme=dark,sessionid={KEY}",
        f"sessionid={KEY},theme=dark",
        f"sessionid={KEY}; sessionid={'j' * 32}",
        "sessionid=",
        "sessionid",
    ],
)
def test_two_cookie_headers_are_noticed_where_the_server_joined_them(cookies):
    assert "exactly once" in refused(("cookie", cookies), OWN)


def test_a_comma_in_another_cookie_is_no_second_header():
    assert credentials(("cookie", f"prefs=a,b; sessionid={KEY}; c=1,2"), OWN) == SessionCookie(KEY)


@pytest.mark.parametrize(
    "header",
    [
        "Bearer abc,Bearer abc",
        "Bearer abc, Bearer def",
        "Basic eA==,Bearer abc",
        "Bearer abc def",
        "Bearer ",
        "Bearer \xe9",
        "Bearer a=b",
        "Bearer abc\x85",
    ],
)
def test_what_is_not_exactly_one_token_is_refused(header):
    assert "bearer" in refused(("authorization", header))


def test_a_password_for_the_proxy_in_front_is_not_for_us():
    assert credentials(("authorization", "Basic eDp5"), COOKIE, OWN) == SessionCookie(KEY)


@pytest.mark.parametrize("query", [b"token=abc", b"x=1&access_token=abc", b"Bearer=abc", b"authorization=Bearer%20abc"])
def test_a_token_in_the_address_is_refused_even_beside_a_valid_one(query):
    refused(TOKEN, query=query)
    refused(COOKIE, OWN, query=query)


def test_other_words_in_the_address_are_ignored():
    assert credentials(TOKEN, OWN, query=b"v=1&x=%ff&tokens=3\xff") == BearerToken("abc")


@pytest.mark.parametrize("offered", [(), ("",), ("turnout.v2",), ("TURNOUT.V1",), ("turnout.v1 ",), ("x",) * 300])
def test_without_our_subprotocol_nobody_is_let_in(offered):
    refused(TOKEN, subprotocols=offered)


def test_our_subprotocol_may_be_one_of_many():
    assert credentials(TOKEN, subprotocols=["x"] * 299 + ["turnout.v1"]) == BearerToken("abc")


def address(*headers):
    return client_address(scope(*headers) | {"client": ("192.0.2.9", 4711)})


def test_a_client_is_where_its_connection_comes_from_whatever_it_says():
    assert address() == "192.0.2.9"
    assert address(("x-forwarded-for", "10.0.0.1")) == "192.0.2.9"
    assert client_address(scope()) is None, "a server that does not tell"


def test_behind_proxies_that_the_settings_count_their_word_counts_and_no_clients(settings):
    settings.PROXY_HOPS = 1
    assert address(("x-forwarded-for", "10.0.0.1, 198.51.100.7")) == "198.51.100.7"
    assert address(("x-forwarded-for", "10.0.0.1"), ("x-forwarded-for", "198.51.100.7")) == "198.51.100.7"
    assert address() is None, "the proxy says nothing"
    settings.PROXY_HOPS = 2
    assert address(("x-forwarded-for", "10.0.0.1, 198.51.100.7, 192.0.2.1")) == "198.51.100.7"
    assert address(("x-forwarded-for", "198.51.100.7")) is None
    assert len(address(("x-forwarded-for", "a" * 10_000 + ", b")) or "") == 64


def test_a_proxy_whose_hops_are_not_counted_is_nobodys_address(settings):
    settings.BEHIND_TLS_PROXY = True
    assert address(("x-forwarded-for", "198.51.100.7")) is None


def test_a_secret_does_not_show_in_a_log():
    assert KEY not in repr(SessionCookie(KEY))
    assert "abc" not in repr(BearerToken("abc"))
    assert "abc" not in refused(("authorization", "Bearer abc,Bearer abc"))


HEADER = st.tuples(
    st.sampled_from([b"cookie", b"authorization", b"origin", b"host", b"x-forwarded-proto", b"content-type"]),
    st.binary(max_size=40)
    | st.sampled_from([b"Bearer a", b"sessionid=a", b"http://chat.example", b"text/html; charset=x"]),
)


@given(st.lists(HEADER, max_size=6), st.binary(max_size=40))
def test_any_headers_at_all_are_credentials_or_a_refusal(headers, query):
    answer: object = None
    try:
        answer = check_handshake(scope(query=query) | {"headers": headers})
    except HandshakeRefused as refusal:
        answer = refusal
    assert isinstance(answer, SessionCookie | BearerToken | NoCredentials | HandshakeRefused)
