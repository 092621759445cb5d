"""The tool that reads the web reads nothing of the network it stands in, however the address is written."""

import asyncio
import contextlib
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.agents.fetching import FetchLimits, FetchTool, is_public
from apps.agents.tools import Toolbox, ToolRefused
from apps.vocabulary import RunId, ThreadId, new_id
from tests.agents.worlds import ADA

INSIDE = [
    "127.0.0.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.0.1",
    "192.88.99.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "2606:4700::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1",
    "", "localhost", "1.2.3", "2130706433", "0x7f.1",
]  # fmt: skip
OUTSIDE = ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"]


@pytest.mark.parametrize("address", INSIDE)
def test_an_address_of_the_inside_is_known_as_one(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_an_address_of_the_public_internet_is_known_as_one(address):
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_the_same_in_whatever_it_is_wrapped(address):
    number = int(address)
    for wrapped in (f"::ffff:{address}", f"64:ff9b::{number >> 16:x}:{number & 65535:x}"):
        assert is_public(wrapped) == is_public(str(address))


class Web:
    """A server on loopback, known by names; `asked` is what reached it, `looked_up` what was resolved."""

    def __init__(self):
        self.pages, self.asked, self.looked_up, self.names = {}, [], [], {}
        self.port = 0

    async def serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        answer = self.pages[head.split(" ")[1]]
        if callable(answer):
            await answer(reader, writer)
        else:
            writer.write(answer)
        writer.close()

    async def resolve(self, host, port):
        self.looked_up.append(host)
        return self.names.get(host, ["127.0.0.1"])

    def tool(self, **limits):
        def permit(address):
            return address == "127.0.0.1" or is_public(address)

        return FetchTool(FetchLimits(**limits), self.resolve, permit, {"http": self.port, "https": self.port})

    async def read(self, url, **limits):
        async with Toolbox([self.tool(**limits)]).open_belt(ADA, RunId("r"), ThreadId("t")) as tools:
            return await tools.call("fetch_page", {"url": url}, new_id())


@asynccontextmanager
async def web(**pages):
    there = Web()
    server = await asyncio.start_server(there.serve, "127.0.0.1", 0)
    there.port = server.sockets[0].getsockname()[1]
    there.pages = {f"/{name}": page for name, page in pages.items()}
    async with server:
        yield there


def page(body, kind="text/plain; charset=utf-8", status="200 OK", *headers):
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", *headers, "", ""]
    return "\r\n".join(lines).encode() + (body if isinstance(body, bytes) else body.encode())


def to(address):
    return page("", "text/plain", "302 Found", f"Location: {address}")


async def test_a_page_is_read_as_text_and_nothing_of_the_user_goes_along():
    html = page("<title>T</title><script>bad()</script><p>Hello &amp; <b>you</b></p>", "text/html")
    async with web(a=html) as there:
        assert await there.read("http://example.org/a") == "THello & you"
        (head,) = there.asked
    assert "Host: example.org\r\n" in head
    assert not any(word in head.lower() for word in ("cookie", "authorization", "ada", "referer"))


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/", "http://[::1]/", "http://[::ffff:169.254.169.254]/",
        "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://localhost./", "http://[fe80::1]/",
    ],
)  # fmt: skip
async def test_an_address_of_the_inside_is_refused_by_the_systems_own_resolver(url):
    async with Toolbox([FetchTool(FetchLimits())]).open_belt(ADA, RunId("r"), ThreadId("t")) as tools:
        with pytest.raises(ToolRefused, match=r"public internet|no server of that name"):
            await tools.call("fetch_page", {"url": url}, "c")


async def test_every_address_of_a_name_must_be_public_and_the_one_that_was_judged_is_used():
    async with web(a=page("fine")) as there:
        there.names = {"two.example": ["127.0.0.1", "10.0.0.1"], "inside.example": ["169.254.169.254"]}
        for host in there.names:
            with pytest.raises(ToolRefused, match="public internet"):
                await there.read(f"http://{host}/a")
        assert there.asked == []
        assert await there.read("http://one.example/a") == "fine"
        assert there.looked_up.count("one.example") == 1


@pytest.mark.parametrize("target", ["http://inside.example/", "http://[::1]/x", "file:///etc/passwd", "http://u@one.example/a", "gopher://x/", "//inside.example/"])  # fmt: skip  # noqa: E501
async def test_each_redirect_is_judged_like_a_first_address(target):
    async with web(a=to(target)) as there:
        there.names = {"inside.example": ["10.0.0.1"], "::1": ["::1"]}
        with pytest.raises(ToolRefused):
            await there.read("http://one.example/a")
        assert len(there.asked) == 1


async def test_redirects_are_followed_to_a_bound():
    async with web(a=to("/b"), b=to("http://two.example/c"), c=page("there"), loop=to("/loop")) as there:
        assert await there.read("http://one.example/a") == "there"
        assert there.looked_up == ["one.example", "one.example", "two.example"]
        with pytest.raises(ToolRefused, match="more than 3 times"):
            await there.read("http://one.example/loop")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/", "javascript:alert(1)", "http:///a", "http://a b/", "http://example.org:22/", "https://",
        "http://user:secret@example.org/", "http://exa\nmple.org/", "http://example.org/\r\nX: y", "http://example.org/ü",
        "http://[::1%25eth0]/", "http://[::1", "http://example.org:99999/", "http://-x/", "//example.org/aaaa",
    ],
)  # fmt: skip
async def test_what_is_no_plain_address_is_refused_before_anything_is_looked_up(url):
    async with web() as there:
        with pytest.raises(ToolRefused):
            await there.read(url)
        assert there.asked == []


async def test_bytes_and_time_are_bounded():
    async def floods(reader, writer):
        writer.write(page(""))
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"x" * 65_536)
                await writer.drain()

    async def hangs(reader, writer):
        await reader.read()  # until the client is gone

    async def endless_head(reader, writer):
        with contextlib.suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000)
            await writer.drain()

    async with web(big=floods, slow=hangs, head=endless_head) as there:
        with pytest.raises(ToolRefused, match="more than 100000 bytes"):
            await there.read("http://one.example/big", bytes=100_000)
        with pytest.raises(ToolRefused, match=r"longer than 0\.2 seconds"):
            await there.read("http://one.example/slow", timeout_s=0.2)
        with pytest.raises(ToolRefused, match="broke off"):
            await there.read("http://one.example/head")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (page(b"\x89PNG", "image/png"), "not text"),
        (page("x", "text/plain", "404 Not Found"), "status 404"),
        (b"nonsense\r\n\r\n", "broke off"),
        (b"HTTP/1.1 abc\r\n\r\n", "broke off"),
        (b"", "broke off"),
    ],
)
async def test_what_is_no_page_is_told(answer, said):
    async with web(a=answer) as there:
        with pytest.raises(ToolRefused, match=said):
            await there.read("http://one.example/a")


async def test_a_page_in_an_unknown_charset_is_read_all_the_same():
    async with web(a=page("gr\xfc\xdfe".encode("latin1"), "text/plain; charset=latin1"), b=page("x", "text/plain; charset=no")) as there:  # fmt: skip  # noqa: E501
        assert await there.read("http://one.example/a") == "grüße"
        assert await there.read("http://one.example/b") == "x"
