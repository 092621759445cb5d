"""A log, processes, sockets and tabs without any I/O, driven by one source of chance: the real cursor decides.

What is real: the cursor, the judgement of positions, the numbering and the checksums. What is modelled, as badly as
the world allows: hints are lost, doubled, late and in any order; reads are answered whenever; sockets drop with what
is on the way; processes restart; the tail is trimmed under a reader; the database is restored from a backup, with and
without new epochs; tabs read and acknowledge when they like.

A tab holds its state and its position together. It must see each `seq` once and in order, and when all is quiet it must
hold exactly what the log's history holds, whatever happened before.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from apps.realtime.cursor import (
    Action,
    CheckPosition,
    CursorState,
    DeliveryCursor,
    ReadLog,
    SendEvents,
    SendReset,
    judge_position,
)
from apps.realtime.protocol import ResetReason
from apps.realtime.values import Page
from apps.vocabulary import Position
from tests.realtime.simulated_log import Log, page_of

WINDOW_EVENTS, WINDOW_BYTES, SEGMENT_EVENTS, SEGMENT_BYTES = 12, 120, 4, 40
PROCESSES, TABS = 2, 3
QUIET_ROUNDS = 400  # more than any schedule needs to deliver everything; then something is stuck


class PromiseBroken(AssertionError):  # noqa: N818 - says what happened
    """A promise does not hold; the message names the seed and the last steps."""


class Connection:
    """One socket: the server's cursor, and what is under way in each direction."""

    def __init__(self, process: int, after: Position | None) -> None:
        self.process = process
        self.cursor = DeliveryCursor(
            window_events=WINDOW_EVENTS,
            window_bytes=WINDOW_BYTES,
            segment_events=SEGMENT_EVENTS,
            segment_bytes=SEGMENT_BYTES,
        )
        self.to_tab: deque[SendEvents | SendReset] = deque()
        self.to_server: deque[int | Position] = deque()  # an ack, or the position of a subscribe
        self.asked: deque[CheckPosition | ReadLog] = deque()
        self.perform(self.cursor.subscribed(after))

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case SendEvents():
                    self.to_tab.append(action)
                case SendReset():
                    self.to_tab.append(action)
                    self.asked.clear()  # answers to what was asked before a reset are dropped
                case CheckPosition() | ReadLog():
                    self.asked.append(action)


@dataclass
class Tab:
    """State and position, which live and die together."""

    state: list[int] = field(default_factory=list)
    position: Position | None = None
    acked: int = 0
    connection: Connection | None = None

    @property
    def seq(self) -> int:
        return len(self.state)


class Simulation:
    """One schedule. `run` raises PromiseBroken; `bit` counts the faults that had an effect."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = Random(seed)
        self.epochs = 0
        self.log = Log(self._new_epoch())
        self.backup = self.log.copy()
        self.next_value = 1
        self.tabs = [Tab() for _ in range(TABS)]
        self.hints: list[tuple[int, int]] = []  # process, head
        self.pages: list[Page] = []  # shown lately, which may come again
        self.bit: Counter[str] = Counter()
        self.steps: list[str] = []

    def run(self) -> Counter[str]:
        chance = self.chance
        usual: dict[Callable[[], None], int] = {
            self.commit: 30,
            self.oversize: 1,
            self.show_again: 3,
            self.hint: 12,
            self.poll: 4,
            self.answer: 30,
            self.deliver: 30,
            self.acknowledge: 15,
            self.receive_ack: 15,
            self.connect: 8,
            self.drop: 4,
            self.restart: 1,
            self.trim: 2,
            self.back_up: 1,
            self.restore: 1,
            self.rotate: 1,
        }
        # Each schedule likes some faults and hardly knows others; a fair mixture would meet few of their combinations.
        weights = [weight * chance.choice((0.1, 1, 1, 3)) for weight in usual.values()]
        try:
            for move in chance.choices(list(usual), weights, k=chance.randrange(30, 120)):
                self.steps.append(move.__name__)
                move()
            self.settle()
        except PromiseBroken:
            raise
        except Exception as error:
            raise self.broken(f"{type(error).__name__}: {error}") from error
        return self.bit

    def broken(self, what: str) -> PromiseBroken:
        return PromiseBroken(f"seed {self.seed}: {what}\nlast steps: {' '.join(self.steps[-40:])}")

    # -- the servers

    def commit(self) -> None:
        """One commit, of one or more segments, by some process: its own tabs are shown it, the others get a hint."""
        process = self.chance.randrange(PROCESSES)
        rows = self.chance.choice((1, 1, 1, 2, 5))
        first = len(self.log.segments)
        for _ in range(rows):
            self._append(self.chance.randint(1, SEGMENT_EVENTS), self.chance.randint(1, SEGMENT_BYTES))
        self._shown(process, page_of(self.log.epoch, self.log.segments[first:]))

    def oversize(self) -> None:
        """One event that is larger than a whole window."""
        self._append(1, WINDOW_BYTES * self.chance.randint(1, 3))
        self._shown(self.chance.randrange(PROCESSES), page_of(self.log.epoch, self.log.segments[-1:]))

    def _append(self, events: int, size: int) -> None:
        values = tuple(range(self.next_value, self.next_value + events))
        self.next_value += events
        self.log.append(values, size)

    def _shown(self, process: int, page: Page) -> None:
        self.pages = [*self.pages[-3:], page]
        for connection in self.connections(process):
            connection.perform(connection.cursor.committed(page))
        self.hints += [(other, self.log.head) for other in range(PROCESSES) if other != process]

    def show_again(self) -> None:
        """A page comes late or twice."""
        if self.pages:
            page = self.chance.choice(self.pages)
            if page.position.seq <= self.log.head:
                self.bit["doubled page"] += 1
                for connection in self.connections(self.chance.randrange(PROCESSES)):
                    connection.perform(connection.cursor.committed(page))

    def hint(self) -> None:
        """One hint arrives, any of those under way; or is lost; or comes twice."""
        if self.hints:
            number = self.chance.randrange(len(self.hints))
            process, head = self.hints[number]
            fate = self.chance.choice(("lost", "once", "once", "twice"))
            self.bit[f"hint {fate}"] += 1
            if fate != "twice":
                del self.hints[number]
            if fate != "lost":
                for connection in self.connections(process):
                    connection.perform(connection.cursor.hinted(head))

    def poll(self) -> None:
        """A process asks for the heads."""
        for connection in self.connections(self.chance.randrange(PROCESSES)):
            state = connection.cursor.state
            connection.perform(connection.cursor.polled(self.log.position))
            self.bit["epoch changed under a tab"] += connection.cursor.state is CursorState.RESET is not state

    def answer(self) -> None:
        """One read that some connection waits for is answered, from the log as it is now."""
        waiting = [connection for connection in self.connections() if connection.asked]
        if waiting:
            self._answer(self.chance.choice(waiting))

    def _answer(self, connection: Connection) -> None:
        cursor = connection.cursor
        match connection.asked.popleft():
            case CheckPosition(None):
                connection.perform(cursor.positioned(self.log.position, self.log.head))
            case CheckPosition(Position() as after):
                log = self.log
                tail = Position(log.epoch, log.tail, log.tail_tag)
                reason = judge_position(after, log.position, tail, log.tag_at(after.seq))
                if reason is None:
                    connection.perform(cursor.positioned(after, log.head))
                else:
                    self.bit[f"reset {reason}"] += 1
                    connection.perform(cursor.refused(reason, log.position))
            case ReadLog() as request:
                page, trimmed_head = self.log.read(request)
                if trimmed_head is not None:
                    self.bit["trimmed under a reader"] += 1
                    connection.perform(cursor.refused(ResetReason.TRIMMED, trimmed_head))
                else:
                    connection.perform(cursor.read_page(page))

    def restart(self) -> None:
        """A process dies with its cursors, sockets and hints."""
        process = self.chance.randrange(PROCESSES)
        self.hints = [hint for hint in self.hints if hint[0] != process]
        for tab in self.tabs:
            if tab.connection is not None and tab.connection.process == process:
                self.bit["restart"] += 1
                tab.connection = None

    def trim(self) -> None:
        """Retention takes some of the oldest rows."""
        rows = self.chance.randint(0, len(self.log.segments))
        self.bit["trim"] += bool(rows)
        self.log.trim(rows)

    def back_up(self) -> None:
        self.backup = self.log.copy()

    def restore(self) -> None:
        """All processes are stopped, the backup is put back, and the epochs are renewed, or that is forgotten."""
        for tab in self.tabs:
            tab.connection = None
        self.hints, self.pages = [], []
        self.bit["restore"] += self.log.head > self.backup.head
        self.log = self.backup.copy()
        if self.chance.random() < 0.5:
            self.log.epoch = self._new_epoch()

    def rotate(self) -> None:
        """An operator renews the epochs while tabs are connected; pages of the old history may still come."""
        self.log.epoch = self._new_epoch()

    def _new_epoch(self) -> str:
        self.epochs += 1
        return f"{self.epochs:016x}"

    def connections(self, process: int | None = None) -> list[Connection]:
        open_ones = [tab.connection for tab in self.tabs if tab.connection is not None]
        return [one for one in open_ones if process is None or one.process == process]

    # -- the tabs

    def connect(self) -> None:
        for tab in self.tabs:
            if tab.connection is None and self.chance.random() < 0.7:
                self._connect(tab)

    def _connect(self, tab: Tab) -> None:
        if tab.position is None:
            self._load_snapshot(tab)
        tab.acked = tab.seq
        tab.connection = Connection(self.chance.randrange(PROCESSES), tab.position)

    def _load_snapshot(self, tab: Tab) -> None:
        tab.state, tab.position = self.log.values[:], self.log.position

    def drop(self) -> None:
        """A socket breaks, with all that is under way on it."""
        tab = self.chance.choice(self.tabs)
        if tab.connection is not None:
            self.bit["drop"] += bool(tab.connection.to_tab)
            tab.connection = None

    def deliver(self) -> None:
        """A tab reads one frame."""
        reading = [tab for tab in self.tabs if tab.connection is not None and tab.connection.to_tab]
        if reading:
            self._deliver(self.chance.choice(reading))

    def _deliver(self, tab: Tab) -> None:
        connection = tab.connection
        assert connection is not None
        match connection.to_tab.popleft():
            case SendEvents(page):
                for seq, value in enumerate(map(int, page.events.split(",")), start=page.first):
                    if seq != tab.seq + 1:
                        raise self.broken(f"a tab at {tab.seq} was sent {seq}")
                    tab.state.append(value)
                if page.position.seq != tab.seq:
                    raise self.broken(f"a tab at {tab.seq} was told that it is at {page.position.seq}")
                tab.position = page.position
            case SendReset():
                self._load_snapshot(tab)
                tab.acked = tab.seq
                assert tab.position is not None
                connection.to_server.append(tab.position)

    def acknowledge(self) -> None:
        """A tab acknowledges some of what it has read, or all, or not at all for now."""
        tab = self.chance.choice(self.tabs)
        if tab.connection is not None and tab.acked < tab.seq:
            tab.acked = self.chance.randint(tab.acked + 1, tab.seq)
            tab.connection.to_server.append(tab.acked)

    def receive_ack(self) -> None:
        """The server reads one frame of a tab."""
        talking = [connection for connection in self.connections() if connection.to_server]
        if talking:
            self._receive(self.chance.choice(talking))

    def _receive(self, connection: Connection) -> None:
        said = connection.to_server.popleft()
        if isinstance(said, Position):
            connection.perform(connection.cursor.subscribed(said))
        else:
            connection.perform(connection.cursor.acknowledged(said))

    # -- the end

    def settle(self) -> None:
        """The faults stop: everybody comes back, and everything that can happen happens, until nothing can."""
        for _ in range(QUIET_ROUNDS):
            for tab in self.tabs:
                self._settle(tab)
            if all(self._is_done(tab) for tab in self.tabs):
                break
        else:
            raise self.broken(f"a tab is stuck: {[tab.connection and tab.connection.cursor for tab in self.tabs]}")
        if any(tab.state != self.log.values for tab in self.tabs):
            raise self.broken("a tab holds another history than the log")

    def _settle(self, tab: Tab) -> None:
        if tab.connection is None:
            self._connect(tab)
        connection = tab.connection
        assert connection is not None
        connection.perform(connection.cursor.polled(self.log.position))
        while connection.asked:
            self._answer(connection)
        while connection.to_tab:
            self._deliver(tab)
        if tab.acked < tab.seq:
            tab.acked = tab.seq
            connection.to_server.append(tab.acked)
        while connection.to_server:
            self._receive(connection)

    def _is_done(self, tab: Tab) -> bool:
        assert tab.connection is not None
        idle = tab.connection.cursor.state is CursorState.IDLE
        return idle and tab.seq >= self.log.head and not tab.connection.to_tab and not tab.connection.asked
