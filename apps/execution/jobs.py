"""Wake-ups between machines, as jobs of procrastinate on PostgreSQL: a `django.tasks` backend, and who listens.

A job carries no work. The run's row is the truth: a job that is lost, late, done twice or by the wrong process costs at
most the time until the next sweep. So nothing is ever tried again, finished jobs are deleted, and so are those whose
process is gone. This module is imported where `TURNOUT_EXECUTION=workers` only; procrastinate is an extra.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import procrastinate
from django.tasks import Task, TaskResult, TaskResultStatus
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.exceptions import InvalidTask
from django.tasks.signals import task_enqueued
from django.utils import timezone
from procrastinate.contrib.django.django_connector import DjangoConnector
from procrastinate.contrib.django.utils import connector_params
from procrastinate.exceptions import ConnectorException

from apps.execution.limits import JobLimits
from apps.execution.stalled_jobs import QUEUE

logger = logging.getLogger(__name__)

JOB = "turnout.wake_up"
_WAKE_UPS = "apps.execution.tasks"
_CONNECTIONS = 3  # of a listener: one listens, one beats, one fetches


class ProcrastinateBackend(BaseTaskBackend):
    """`enqueue` inserts a job, in a transaction of its own or in the caller's.

    A task that is told `process_id` is for that process alone.
    """

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self._app = procrastinate.App(connector=DjangoConnector())

    def validate_task(self, task: "Task[Any, Any]") -> None:
        super().validate_task(task)
        if task.func.__module__ != _WAKE_UPS:  # by name: that module asks for this backend while it is imported
            raise InvalidTask(
                f"{task.module_path} is no wake-up of Turnout; give other tasks a backend of their own in TASKS"
            )

    def enqueue(self, task: "Task[Any, Any]", args: Sequence[Any], kwargs: Mapping[str, Any]) -> "TaskResult[Any, Any]":
        self.validate_task(task)
        queue = kwargs.get("process_id") or QUEUE
        job = self._app.configure_task(JOB, queue=queue)
        job_id = job.defer(task=task.func.__name__, args=list(args), kwargs=dict(kwargs))
        result: TaskResult[Any, Any] = TaskResult(
            task=task,
            id=str(job_id),
            status=TaskResultStatus.READY,
            enqueued_at=timezone.now(),
            started_at=None,
            last_attempted_at=None,
            finished_at=None,
            args=list(args),
            kwargs=dict(kwargs),
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        task_enqueued.send(type(self), task_result=result)
        return result


class JobListener:
    """Takes the jobs of this process, while it is open. Comes back by itself when the database was away.

    `wake_ups` are the functions that a job may name; they return at once.
    """

    def __init__(self, process_id: str, limits: JobLimits, wake_ups: Mapping[str, Callable[..., None]]) -> None:
        self._wake_ups = wake_ups
        self._process_id = process_id
        self._limits = limits
        self._task: asyncio.Task[None] | None = None
        self._taken = 0
        self._restarts = 0

    def __repr__(self) -> str:
        return f"<JobListener taken={self._taken} restarts={self._restarts}>"

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._listen(), name="job-listener")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=self._limits.stop_s)

    def census(self) -> Mapping[str, int]:
        """Counts for the process report."""
        return {"jobs_total": self._taken, "listener_restarts_total": self._restarts}

    async def _listen(self) -> None:
        while True:
            try:
                await self._take_jobs()
                logger.warning("the listener for jobs stopped; again in %g s", self._limits.poll_s)
            except ConnectorException as error:
                logger.warning("the listener for jobs lost the database: %s; again in %g s", error, self._limits.poll_s)
            except Exception:
                logger.exception("the listener for jobs stopped; again in %g s", self._limits.poll_s)
            self._restarts += 1
            await asyncio.sleep(self._limits.poll_s)  # meanwhile the sweep finds what is queued

    async def _take_jobs(self) -> None:
        connector = procrastinate.PsycopgConnector(
            kwargs=connector_params(), min_size=1, max_size=_CONNECTIONS, timeout=self._limits.heartbeat_s
        )
        app = procrastinate.App(connector=connector)
        app.task(name=JOB)(self._take)
        async with app.open_async():
            await app.run_worker_async(
                queues=[QUEUE, self._process_id],
                name=self._process_id,
                concurrency=1,
                fetch_job_polling_interval=self._limits.poll_s,
                abort_job_polling_interval=self._limits.sweep_s,
                update_heartbeat_interval=self._limits.heartbeat_s,
                stalled_worker_timeout=self._limits.stalled_s,
                shutdown_graceful_timeout=self._limits.stop_s,
                delete_jobs="always",
                install_signal_handlers=False,
            )

    async def _take(self, task: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        self._taken += 1
        wake_up = self._wake_ups.get(task)
        if wake_up is None:
            logger.warning("a job asks for %r, which this version does not know", task)
            return
        wake_up(*args, **kwargs)
