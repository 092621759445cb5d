"""The line in which the writers of one database file wait, within one process: first come, first served."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

_LOOK_S = 0.1  # a turn that nobody passes on because its thread has died is noticed this much later


@dataclass(eq=False, slots=True)
class Turn:
    """A place in the line; `come` is set when it is this one's turn. `let_go` frees the file if its thread has died."""

    let_go: Callable[[], object]
    thread: threading.Thread = field(default_factory=threading.current_thread)
    come: threading.Event = field(default_factory=threading.Event)


class Line:
    """Gives the turn to one after the other. A turn whose thread died, transaction open, goes to the next."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._now: Turn | None = None
        self._waiting: deque[Turn] = deque()

    def __repr__(self) -> str:
        return f"<Line taken={self._now is not None} waiting={len(self._waiting)}>"

    def take(self, timeout_s: float, let_go: Callable[[], object]) -> Turn | None:
        """Wait for the turn, at most so long; None when it did not come. `let_go` is called, in another thread, if
        this one dies without passing the turn on.
        """
        mine = Turn(let_go)
        with self._mutex:
            self._waiting.append(mine)
            if self._now is None:
                self._call_next()
        deadline = time.monotonic() + timeout_s
        try:
            while not mine.come.wait(min(_LOOK_S, max(deadline - time.monotonic(), 0))):
                with self._mutex:
                    if self._now is not None and not self._now.thread.is_alive():
                        self._now.let_go()
                        self._call_next()
                    if not mine.come.is_set() and time.monotonic() >= deadline:
                        self._waiting.remove(mine)
                        return None
        except BaseException:
            self.pass_on(mine)
            raise
        return mine

    def pass_on(self, turn: Turn) -> None:
        """Give the turn, or the place in the line, back. Nothing happens when it was taken away before."""
        with self._mutex:
            if turn is self._now:
                self._call_next()
            elif turn in self._waiting:
                self._waiting.remove(turn)

    def _call_next(self) -> None:
        self._now = self._waiting.popleft() if self._waiting else None
        if self._now is not None:
            self._now.come.set()
