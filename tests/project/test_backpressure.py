"""Both directions of a client's buffers, at the parts that Daphne is given instead of its own."""

import asyncio
from types import SimpleNamespace

import pytest
from twisted.internet.testing import StringTransport

from project.backpressure import BoundedWebSocket, Intake, Outlet


def text(size):
    return {"type": "websocket.receive", "text": "x" * size}


async def test_reading_stops_at_the_bound_on_frames_and_goes_on_when_all_are_handled():
    intake, transport = Intake(3, 1_000_000), StringTransport()
    for _ in range(2):
        intake.received(text(1), transport)
    assert transport.producerState == "producing"
    for _ in range(5):  # what one read brings still comes
        intake.received(text(1), transport)
    assert transport.producerState == "paused"
    for _ in range(6):
        await intake.get()
    assert transport.producerState == "paused"
    await intake.get()
    assert transport.producerState == "producing"


async def test_reading_stops_at_the_bound_on_bytes():
    intake, transport = Intake(100, 1_000), StringTransport()
    intake.received(text(600), transport)
    assert transport.producerState == "producing"
    intake.received(text(600), transport)
    assert transport.producerState == "paused"
    await intake.get()
    await intake.get()
    assert transport.producerState == "producing"
    intake.received({"type": "websocket.receive", "bytes": b"y" * 1_000}, transport)
    assert transport.producerState == "paused"


async def test_a_frame_for_which_the_application_waits_already_is_counted_and_given_back():
    intake, transport = Intake(1, 1_000), StringTransport()
    waiting = asyncio.create_task(intake.get())
    await asyncio.sleep(0)
    intake.received(text(1_000), transport)
    await waiting
    assert transport.producerState == "producing"


@pytest.mark.parametrize("what_happens", ["resumeProducing", "stopProducing"])
async def test_a_send_waits_while_the_transport_is_full_and_no_longer_than_the_connection_lives(what_happens):
    outlet = Outlet()
    await outlet.until_free()
    outlet.pauseProducing()
    waiting = asyncio.create_task(outlet.until_free())
    await asyncio.sleep(0)
    assert outlet.is_full
    assert not waiting.done()
    getattr(outlet, what_happens)()
    await waiting


def test_what_comes_before_the_handshake_is_answered_stays_with_the_client():
    socket = BoundedWebSocket()
    socket.factory = SimpleNamespace(isServer=True)
    transport = socket.transport = StringTransport()
    socket.outlet, socket._heard_early = Outlet(), False
    socket.state, socket.processHandshake = socket.STATE_CONNECTING, lambda: None
    socket.data, socket.logOctets = b"", False
    socket.trafficStats = SimpleNamespace(preopenIncomingOctetsWireLevel=0)
    socket.dataReceived(b"GET /ws/chat/ HTTP/1.1\r\n\r\n")
    assert transport.producerState == "producing"
    socket.dataReceived(b"z" * 100)
    assert transport.producerState == "paused"
