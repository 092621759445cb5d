"""What of a process executes runs, or watches over those that do: agents, service, lease, reaper, executor."""

import logging
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings

from apps.agents.provider import ModelProvider
from apps.agents.registry import AgentClassRegistry
from apps.agents.tools import Toolbox
from apps.chat.folding import MessageFold
from apps.chat.history import history_within
from apps.execution.executor import Executor
from apps.execution.keeper import LeaseKeeper
from apps.execution.reaper import Reaper
from apps.execution.recovery import Recovery
from apps.execution.service import RunService
from apps.execution.stalled_jobs import delete_stalled_jobs
from apps.execution.succession import Succession
from apps.execution.tasks import cancel_run, wake_executor
from apps.execution.watchdog import LoopWatchdog
from apps.operations.census import Counted
from apps.realtime.database import DatabaseThreads
from apps.realtime.log import EventLog
from apps.realtime.periodic import Periodic
from project.configuration import Configuration
from project.limits import history_limits, job_limits, lease_limits, model_settings, plans, run_limits
from project.switch import Switch

if TYPE_CHECKING:
    from apps.execution.jobs import JobListener

logger = logging.getLogger(__name__)

_IN_ANY_CASE = {"run_worker", "task"}  # the kinds of processes that are there to execute


class Execution:
    """The parts of one process, made and not yet open. Where workers execute, a web process only watches over them."""

    def __init__(
        self,
        configuration: Configuration,
        process_id: str,
        kind: str,
        database: DatabaseThreads,
        log: EventLog,
        switch: Switch,
        agents: AgentClassRegistry,
        toolbox: Toolbox,
    ) -> None:
        self.executes = kind in _IN_ANY_CASE or configuration.execution == "in_process"
        self.provider = ModelProvider(model_settings(configuration))
        self.fold = MessageFold(log)
        described = agents.describe()
        self.runs = RunService(
            log=log,
            limits=run_limits(configuration),
            choose_paths=switch.choose_paths,
            known_agents={agent.name: agent.max_tokens for agent in described},
            plans=plans(configuration, settings.TURNOUT_PLAN),
            fold=switch.observed(self.fold),
            process_id=process_id,
            why_closed=switch.why_closed,
        )
        self.watchdog = LoopWatchdog(configuration.stall_report_s)
        self._jobs = _jobs(configuration, process_id, database) if kind == "run_worker" else None
        self.lease = LeaseKeeper(process_id, lease_limits(configuration))
        succession = Succession(
            Recovery(log, switch.observed(self.fold)),
            admit=self.runs.admit,
            put_back=self.fold.ask_again,
            restartable=[agent.name for agent in described if agent.restartable],
            restarts=configuration.run_restarts,
        )
        self.reaper = Reaper(database, succession)
        self.executor = Executor(
            database=database,
            runs=self.runs,
            keeper=self.lease,
            log=log,
            agents=agents,
            provider=self.provider,
            open_tools=toolbox.open_belt,
            open_engine=switch.open_engine,
            open_bridge=switch.open_bridge,
            history=history_within(history_limits(configuration)),
            hand_over=succession.hand_over,
            limits=run_limits(configuration),
        )

    def __repr__(self) -> str:
        return f"<Execution {self.executor!r} {self.lease!r}>"

    @property
    def is_alive(self) -> bool:
        """Whether what is to be executed here is."""
        return self.executor.is_alive or not self.executes

    def counted(self) -> dict[str, Counted]:
        """Those of the parts that count what they hold."""
        counted: dict[str, Counted] = {
            "executor": self.executor,
            "lease": self.lease,
            "recovery": self.reaper,
            "loop": self.watchdog,
        }
        return counted if self._jobs is None else {**counted, "jobs": self._jobs.listener}

    def parts(self) -> tuple[AbstractAsyncContextManager[Any], ...]:
        """What is to be entered, in this order."""
        holder = self.executor if self.executes else None
        parts: list[AbstractAsyncContextManager[Any]] = [
            self.watchdog.open(),
            self.reaper,
            self.lease.open(holder, self.reaper.end_runs_of),
        ]
        if self.executes:
            parts.append(self.executor)
        if self._jobs is not None:
            parts += [self._jobs.listener, self._jobs.sweep]
        return tuple(parts)


@dataclass(frozen=True, slots=True)
class _Jobs:
    """Who takes wake-ups from other machines, and who deletes those that nobody will take."""

    listener: "JobListener"
    sweep: Periodic


def _jobs(configuration: Configuration, process_id: str, database: DatabaseThreads) -> _Jobs:
    from apps.execution.jobs import JobListener  # noqa: PLC0415 - procrastinate is an extra

    async def sweep() -> None:
        if deleted := await database.call(delete_stalled_jobs, configuration.job_stalled_s):
            logger.info("%d stalled wake-ups deleted", deleted)

    wake_ups = {"wake_executor": wake_executor.func, "cancel_run": cancel_run.func}
    return _Jobs(
        JobListener(process_id, job_limits(configuration), wake_ups),
        Periodic("stalled jobs", configuration.job_sweep_s, sweep),
    )
