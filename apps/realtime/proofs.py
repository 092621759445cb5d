"""Do tabs hold what the log holds? Compares the hashes that tabs send of the messages they assembled.

A tab sends the SHA-256 of a message when the message ends, and the message is stored when its run ends: so a proof
waits, and is looked at again, until it can be compared or `patience_s` is over. What waits is bounded for each user and
for the process; what does not fit is dropped and counted, since a proof is evidence and not delivery.

A broken proof is a defect of ours, in delivery, folding or the page. It is logged with its position, never with text.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from apps.realtime.database import DatabaseThreads
from apps.realtime.periodic import Periodic
from apps.realtime.protocol import Proof
from apps.vocabulary import ConnectionId, MessageId, UserId

logger = logging.getLogger(__name__)

MessageKey = tuple[UserId, MessageId]

ReadDigests = Callable[[Collection[MessageKey]], Mapping[MessageKey, Collection[str]]]
"""The SHA-256 of the stored texts of messages, in hex; one id may name several. What is not stored has no entry."""


@dataclass(frozen=True, slots=True)
class ProofLimits:
    """Proofs that wait, of all users and of one; those compared at once; seconds between looks and of waiting."""

    waiting: int
    waiting_per_user: int
    batch: int
    look_s: float
    patience_s: float


@dataclass(frozen=True, slots=True)
class HandedIn:
    """A proof, and where its tab stood: the message had ended by `seq` of the history `epoch`."""

    user_id: UserId
    connection_id: ConnectionId
    proof: Proof
    epoch: str
    seq: int
    at: float

    @property
    def key(self) -> MessageKey:
        """Whose message it is about."""
        return self.user_id, self.proof.message_id


class ProofChecker:
    """See the module. `async with`; `hand_in` is called on the event loop and never waits."""

    def __init__(
        self,
        database: DatabaseThreads,
        read_digests: ReadDigests,
        limits: ProofLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._read_digests = read_digests
        self._limits = limits
        self._clock = clock
        self._waiting: deque[HandedIn] = deque()
        self._by_user: Counter[UserId] = Counter()
        self._stack = AsyncExitStack()
        self.verified = 0
        self.broken = 0
        self.unchecked = 0  # never stored in time: its thread was deleted, or it is no message of this user
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<ProofChecker waiting={len(self._waiting)} verified={self.verified} broken={self.broken}>"

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(Periodic("proofs", self._limits.look_s, self.look))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def hand_in(
        self, user_id: UserId, connection_id: ConnectionId, proofs: Sequence[Proof], epoch: str, seq: int
    ) -> None:
        """Take what a tab proves that stands at `seq` of `epoch`; it is looked at later."""
        now = self._clock()
        for proof in proofs:
            full = len(self._waiting) >= self._limits.waiting
            if full or self._by_user[user_id] >= self._limits.waiting_per_user:
                self.dropped += 1
            else:
                self._by_user[user_id] += 1
                self._waiting.append(HandedIn(user_id, connection_id, proof, epoch, seq, now))

    async def look(self) -> None:
        """Compare the oldest batch of what waits; what is not stored yet goes behind the others."""
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._limits.batch))]
        if not batch:
            return
        try:
            digests = await self._database.call(self._read_digests, frozenset(one.key for one in batch))
        except BaseException:
            self._waiting.extendleft(reversed(batch))
            raise
        now = self._clock()
        for one in batch:
            stored = digests.get(one.key)
            if stored is None and now - one.at < self._limits.patience_s:
                self._waiting.append(one)
                continue
            self._by_user[one.user_id] -= 1
            if not self._by_user[one.user_id]:
                del self._by_user[one.user_id]
            self._judge(one, stored)

    def _judge(self, one: HandedIn, stored: Collection[str] | None) -> None:
        if stored is None:
            self.unchecked += 1
        elif one.proof.sha256 in stored:
            self.verified += 1
        else:
            self.broken += 1
            logger.error(
                "a tab of user %d holds another text than message %r, which ended by seq %d of epoch %s (%s)",
                one.user_id,
                one.proof.message_id,
                one.seq,
                one.epoch,
                one.connection_id,
            )

    def census(self) -> Mapping[str, int]:
        """Counts for the process report and the metrics."""
        return {
            "waiting": len(self._waiting),
            "verified_total": self.verified,
            "broken_total": self.broken,
            "unchecked_total": self.unchecked,
            "dropped_total": self.dropped,
        }
