"""Claims the runs whose turn it is and runs each in a task of its own, up to the slots of this process.

One task owns all attempts: it opens their TaskGroup, claims, and leaves the group when the last attempt is
done. Wake-ups come from any thread and are hints; once in `sweep_s` it looks without one. What others ask of
its runs comes with each renewal of the lease.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from time import monotonic
from types import TracebackType
from typing import Self

from django.db import InterfaceError, OperationalError

from apps.agents.base import TokenCount
from apps.execution import lifecycle
from apps.execution.attempt import (
    AgentSource,
    ModelSource,
    OpenBridge,
    OpenEngine,
    ReadHistory,
    RunAttempt,
    Stop,
    Workshop,
)
from apps.execution.context import OpenTools
from apps.execution.fairness import ClaimedRun
from apps.execution.keeper import LeaseKeeper, Renewal
from apps.execution.limits import RunLimits
from apps.execution.service import RunService
from apps.execution.timings import RunTimings
from apps.realtime.database import DatabaseThreads
from apps.realtime.log import EventLog
from apps.vocabulary import RunId

logger = logging.getLogger(__name__)

_LETTING_GO = 0.2  # the share of a drain's time that is kept for what does not end


class Executor:
    """Runs what was admitted, while it is open. A `LeaseHolder`: `keeper` tells it what becomes of its runs."""

    def __init__(
        self,
        *,
        database: DatabaseThreads,
        runs: RunService,
        keeper: LeaseKeeper,
        log: EventLog,
        agents: AgentSource,
        provider: ModelSource,
        open_tools: OpenTools,
        open_engine: OpenEngine,
        open_bridge: OpenBridge,
        history: ReadHistory,
        hand_over: Callable[[str, RunId], bool],
        limits: RunLimits,
    ) -> None:
        self._database = database
        self._runs = runs
        self._keeper = keeper
        self._hand_over = hand_over
        self._limits = limits
        self._workshop = Workshop(
            database=database,
            log=log,
            agents=agents,
            provider=provider,
            open_tools=open_tools,
            open_engine=open_engine,
            open_bridge=open_bridge,
            history=history,
            end=runs.end,
            confirmed=keeper.confirmed,
            may_wait=runs.may_wait,
            limits=limits,
        )
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._draining = False
        self._attempts: dict[RunId, RunAttempt] = {}
        self._left_behind: set[asyncio.Task[None]] = set()
        self._given_up: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._claimed = self._abandoned = 0
        self._cleanup_failures = self._fenced = 0
        self.timings = RunTimings()
        self._waits_for_lease = True
        self._in_doubt = False  # whether a claim may have been committed that nobody here has looked for yet
        # Runs whose attempts could not write their ends: the next look ends the first, and could not end the second.
        self._unended, self._not_to_end = set[RunId](), set[RunId]()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.create_task(self._claim_and_run(), name="executor")
        self._main.add_done_callback(_report_death)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain(self._limits.cancel_timeout_s + self._limits.cleanup_timeout_s)

    def __repr__(self) -> str:
        state = "draining" if self._draining else "open" if self.is_alive else "closed"
        return f"<Executor {state} running={len(self._attempts)} of {self._limits.run_slots}>"

    @property
    def is_alive(self) -> bool:
        """True while runs are claimed, or those under way are ended."""
        return self._main is not None and not self._main.done()

    # -- from any thread

    def wake(self) -> None:
        """A run was queued, or a slot came free elsewhere: look now."""
        self._call_soon(self._wake.set)

    def cancel(self, run_id: str) -> None:
        """Stop this run if it runs here. Whether the user may is the service's concern."""
        self._call_soon(self._stop, RunId(run_id), Stop.CANCELLED)

    def _call_soon[*Args](self, callback: Callable[[*Args], object], *args: *Args) -> None:
        if self._loop is None or self._loop.is_closed():
            return  # nobody is left to be told; the row is the truth
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            logger.debug("a wake-up came while the loop closed")

    # -- for the keeper of the lease

    def lease_renewed(self, renewal: Renewal) -> None:
        """Stop what was asked to stop, and what is not ours any more."""
        if self._waits_for_lease:
            self._waits_for_lease = False
            self._wake.set()
        for run_id, attempt in self._attempts.items():
            if renewal.owned.get(run_id):
                attempt.request_stop(Stop.CANCELLED)
            elif run_id not in renewal.owned and attempt.claimed_at < renewal.asked_at:
                attempt.request_stop(Stop.LOST)

    def lease_lost(self) -> None:
        """Stop all runs: others end them. What they still say is refused by the log."""
        for attempt in self._attempts.values():
            attempt.request_stop(Stop.LOST)

    # -- life cycle

    async def drain(self, grace_s: float) -> None:
        """Claim nothing more, end the runs under way as interrupted, and return when they have ended, at the
        latest after `grace_s`, of which a fifth is for letting go of what does not end. Queued runs stay queued;
        what has not ended by then, others end.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        self._draining = True
        self._wake.set()
        if self._main is None:
            return
        for attempt in list(self._attempts.values()):
            attempt.request_stop(Stop.DRAINED)
        await asyncio.wait({self._main}, timeout=grace_s * (1 - _LETTING_GO))
        if not self._main.done():
            logger.error("runs that did not end in %g s, left to others: %s", grace_s, sorted(self._attempts))
            self._main.cancel()
            await asyncio.wait({self._main}, timeout=max(0.0, deadline - loop.time()) / 2)
        await self._give_up_on_what_is_left(deadline)

    async def wait_until_idle(self, timeout_s: float) -> None:
        """Returns when nothing runs here and nothing was there to be claimed, at the latest after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            logger.info("%r goes on with its runs no longer than %g s", self, timeout_s)

    def census(self) -> Mapping[str, int]:
        """Counts for the process report."""
        return {
            "running": len(self._attempts),
            "slots": self._limits.run_slots,
            "left_behind": len(self._left_behind),
            "claimed_total": self._claimed,
            "abandoned_total": self._abandoned,
            "cleanup_failures_total": self._cleanup_failures,
            "fenced_total": self._fenced,
            **self.timings.census(),
        }

    # -- inside

    async def _give_up_on_what_is_left(self, deadline: float) -> None:
        left = self._left_behind - self._given_up
        for task in left:
            task.cancel()
        if left:
            timeout_s = max(0.0, deadline - asyncio.get_running_loop().time())
            _, stuck = await asyncio.wait(left, timeout=min(timeout_s, self._limits.cleanup_timeout_s))
            for task in stuck:
                logger.error("%s is still at work at the end of the process", task.get_name())
            self._given_up |= stuck  # a second drain does not wait for them again

    async def _claim_and_run(self) -> None:
        loop = asyncio.get_running_loop()
        next_sweep = loop.time()
        async with asyncio.TaskGroup() as group:
            while not self._draining:
                self._wake.clear()
                try:
                    if self._in_doubt or loop.time() >= next_sweep:  # a doubt comes before any other claim
                        next_sweep = loop.time() + self._limits.sweep_s
                        await self._take_up_unknown_claims(group)
                    await self._claim_all(group)
                except (OperationalError, InterfaceError) as error:
                    logger.warning("the database cannot be asked for runs: %s", error)
                except Exception:
                    logger.exception("claiming failed; again in %g s", self._limits.sweep_s)
                await self._woken(next_sweep - loop.time())
            if self._in_doubt:
                await self._take_up_before_the_end(group)

    async def _claim_all(self, group: asyncio.TaskGroup) -> None:
        while not self._draining and len(self._attempts) + len(self._left_behind) < self._limits.run_slots:
            if not self._keeper.is_confirmed:
                self._waits_for_lease = True  # the next renewal wakes
                return
            self._in_doubt = True  # until the answer is here; if none comes, until the next look
            claimed = await self._database.call(self._runs.claim)
            self._in_doubt = False
            if claimed is None:
                if not self._attempts:
                    self._idle.set()
                return
            self._start(group, claimed)

    async def _take_up_unknown_claims(self, group: asyncio.TaskGroup) -> None:
        """Runs that are claimed for this process, and that it does not run: they begin now, or end.

        One that no attempt here has had, and that has said nothing, was claimed by a commit whose answer was lost. The
        commit may take effect later than the look that the doubt asked for, and after other claims: so what a run is
        hangs on the run, never on whether there is a doubt. Any other was left by an attempt that could not write its
        end.
        """
        unended = frozenset(self._unended)
        known = self._attempts.keys() | self._not_to_end
        for claimed in await self._database.call(self._runs.claimed_before, known):
            run_id = claimed.lease.run_id
            if run_id not in unended and not claimed.lease.logged:
                logger.warning("run %s was claimed by a commit whose answer was lost", run_id, extra={"run_id": run_id})
                self._start(group, claimed)
                continue
            try:
                await self._database.call(self._runs.end, claimed.lease, lifecycle.interrupted(TokenCount()))
            except (OperationalError, InterfaceError):
                raise
            except Exception:
                logger.exception("run %s cannot be ended", run_id, extra={"run_id": run_id})
                self._not_to_end.add(run_id)  # it is damaged, and would be tried for ever
        self._unended -= unended
        self._in_doubt = False

    async def _take_up_before_the_end(self, group: asyncio.TaskGroup) -> None:
        """What may have been claimed ends as all runs here do, and is asked again where that may be done."""
        try:
            await self._take_up_unknown_claims(group)
        except (OperationalError, InterfaceError) as error:
            logger.warning("a claim may have been committed, and is left to others: %s", error)
        except Exception:
            logger.exception("a claim may have been committed, and is left to others")

    def _start(self, group: asyncio.TaskGroup, claimed: ClaimedRun) -> None:
        self._idle.clear()
        attempt = RunAttempt(claimed, self._workshop, self._adopt)
        self._claimed += 1
        self.timings.claimed(claimed.run)
        self._attempts[attempt.run_id] = attempt
        if self._draining:  # since the claim was sent; the run is ours, so it is ended, not forgotten
            attempt.request_stop(Stop.DRAINED)
        group.create_task(self._attempt(attempt), name=f"run {attempt.run_id}")

    async def _attempt(self, attempt: RunAttempt) -> None:
        try:
            await attempt.execute()
            if attempt.was_drained:
                await self._database.call(self._hand_over, self._keeper.process_id, attempt.run_id)
        except Exception:
            # An attempt raises nothing; if it does, that is a defect, which must not cancel the runs of
            # others.
            logger.exception(
                "run %s ended by a defect of its attempt", attempt.run_id, extra={"run_id": attempt.run_id}
            )
        finally:
            del self._attempts[attempt.run_id]
            self._cleanup_failures += attempt.cleanup_failures
            self._fenced += attempt.was_fenced
            if not attempt.ended_as:
                self._unended.add(attempt.run_id)
            else:
                self.timings.ended(attempt.ended_as, monotonic() - attempt.claimed_at)
            self._wake.set()

    async def _woken(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(max(timeout_s, 0)):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _stop(self, run_id: RunId, stop: Stop) -> None:
        attempt = self._attempts.get(run_id)
        if attempt is not None:
            attempt.request_stop(stop)

    def _adopt(self, task: asyncio.Task[None]) -> None:
        self._abandoned += 1
        self._left_behind.add(task)
        task.add_done_callback(self._let_go)

    def _let_go(self, task: asyncio.Task[None]) -> None:
        self._left_behind.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("%s, left behind, ended with an error", task.get_name(), exc_info=error)


def _report_death(main: asyncio.Task[None]) -> None:
    if not main.cancelled() and (error := main.exception()) is not None:
        logger.critical("the executor has died; no run is claimed any more", exc_info=error)
