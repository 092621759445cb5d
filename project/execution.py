"""What of a process executes runs, or watches over those that do: agents, service, lease, reaper, executor."""

from contextlib import AbstractAsyncContextManager
from typing import Any

from django.conf import settings

from apps.agents.provider import ModelProvider
from apps.agents.registry import AgentClassRegistry
from apps.agents.tools import Toolbox
from apps.chat.folding import MessageFold
from apps.chat.history import history_within
from apps.execution.executor import Executor
from apps.execution.keeper import LeaseKeeper
from apps.execution.reaper import Reaper
from apps.execution.service import RunService
from apps.execution.watchdog import LoopWatchdog
from apps.operations.census import Counted
from apps.realtime.database import DatabaseThreads
from apps.realtime.log import EventLog
from project.configuration import Configuration
from project.limits import history_limits, lease_limits, model_settings, plans, run_limits
from project.switch import Switch


class Execution:
    """The parts of one process, made and not yet open."""

    def __init__(
        self,
        configuration: Configuration,
        process_id: str,
        database: DatabaseThreads,
        log: EventLog,
        switch: Switch,
        agents: AgentClassRegistry,
        toolbox: Toolbox,
    ) -> None:
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
            restartable=[agent.name for agent in described if agent.restartable],
            ask_again=self.fold.ask_again,
            why_closed=switch.why_closed,
        )
        self.watchdog = LoopWatchdog(configuration.stall_report_s)
        self.lease = LeaseKeeper(process_id, lease_limits(configuration))
        self.reaper = Reaper(database, self.runs)
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
            limits=run_limits(configuration),
        )

    def __repr__(self) -> str:
        return f"<Execution {self.executor!r} {self.lease!r}>"

    def counted(self) -> dict[str, Counted]:
        """Those of the parts that count what they hold."""
        return {"executor": self.executor, "lease": self.lease, "recovery": self.reaper, "loop": self.watchdog}

    def parts(self) -> tuple[AbstractAsyncContextManager[Any], ...]:
        """What is to be entered, in this order."""
        return (
            self.watchdog.open(),
            self.reaper,
            self.lease.open(self.executor, self.reaper.end_runs_of),
            self.executor,
        )
