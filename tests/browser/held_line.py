"""A page's line to the server, on which what the server says can be held back: races are made, and not waited for."""

import json
import time
from collections.abc import Callable

from playwright.sync_api import Page, WebSocketRoute


class HeldLine:
    """Install it before the page is opened. `sent` are the frames of the page, in order."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.sent: list[dict[str, object]] = []
        self._holds: Callable[[str], bool] = _nothing
        self._held: list[tuple[WebSocketRoute, str | bytes, str]] = []
        page.route_web_socket("**/ws/chat/", self._connect)

    def hold(self, kind: str | None = None) -> None:
        """From now on, frames of this type do not reach the page; of any type, where none is named."""
        self._holds = (lambda found: found == kind) if kind else (lambda _: True)

    def until_held(self, kind: str) -> None:
        """Return when a frame of this type is held back. Raises TimeoutError after ten seconds."""
        deadline = time.monotonic() + 10
        while kind not in [found for _, _, found in self._held]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {kind} came")
            self._page.wait_for_timeout(10)  # lets Playwright hear the line

    def let_go(self) -> None:
        """What was held back comes now, in its order, and all that follows at once."""
        self._holds = _nothing
        held, self._held = self._held, []
        for page, frame, _ in held:
            page.send(frame)

    def _connect(self, page: WebSocketRoute) -> None:
        server = page.connect_to_server()
        page.on_message(lambda frame: self._said(server, frame))
        server.on_message(lambda frame: self._heard(page, frame))

    def _said(self, server: WebSocketRoute, frame: str | bytes) -> None:
        self.sent.append(json.loads(frame))
        server.send(frame)

    def _heard(self, page: WebSocketRoute, frame: str | bytes) -> None:
        kind = json.loads(frame)["type"] if isinstance(frame, str) else "events"  # only these come compressed
        if self._holds(kind):
            self._held.append((page, frame, kind))
        else:
            page.send(frame)


def _nothing(_kind: str) -> bool:
    return False
