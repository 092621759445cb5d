"""The least that a server can do: an ASGI application that sends numbered frames at a steady pace, and nothing else.

The floor that delivery is compared with, on the same Daphne: no log, no user, no acks. The query string says how many
frames, and how many milliseconds apart: `/?count=200&interval_ms=20`.
"""

import asyncio
import json
import time
from typing import Any
from urllib.parse import parse_qs


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Accept, send `count` frames of the shape of one event each, and wait for the close."""
    if scope["type"] == "http":  # whoever waits for the server asks so
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    options = parse_qs(scope["query_string"].decode())
    count, interval_s = int(options["count"][0]), int(options["interval_ms"][0]) / 1000
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "turnout.v1"})
    loop = asyncio.get_running_loop()
    started = loop.time()
    for number in range(count):
        await asyncio.sleep(max(0.0, started + number * interval_s - loop.time()))
        event = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": f"{number}:bare "}
        entry = {"seq": number + 1, "thread_id": "t", "run_id": "r", "at": time.time(), "event": event}
        await send({"type": "websocket.send", "text": json.dumps({"type": "events", "events": [entry]})})
    while (await receive())["type"] != "websocket.disconnect":
        pass
