"""The life of a process' services, from their opening to the one deadline by which they are closed or cut off."""

import asyncio
import logging
import os
import signal
import sys
from typing import NoReturn

from project.composition import Services, open_services
from project.configuration import Configuration

logger = logging.getLogger(__name__)

CUT_OFF = 3  # the exit code of a process that was told to stop and could not close in time
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # a terminal that closes is no crash either


class CutOff(RuntimeError):  # noqa: N818 - says what happened
    """The process was told to stop, and something in it did not end in time. Leave it by `os._exit`: the threads that
    hang would keep the interpreter from ending.
    """


class ServiceLife:
    """The one task in which the services are opened and closed: an async context is left where it was entered."""

    def __init__(self, configuration: Configuration, kind: str) -> None:
        self._configuration = configuration
        self._kind = kind
        self._leaving = asyncio.Event()
        self._services: Services | None = None
        self._task: asyncio.Task[None] | None = None
        self.cut_off = ""

    async def begin(self) -> Services:
        """Open the services. Raises what opening them raised. Cancelled, it closes first what is open already."""
        opened: asyncio.Future[Services] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(opened), name="services")
        try:
            self._services = await opened
        except asyncio.CancelledError:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=self._configuration.drain_timeout_s)
            raise
        return self._services

    async def end(self, deadline: float) -> None:
        """Close the services. What is not closed at the deadline is cut off, and `cut_off` says what it was."""
        assert self._task is not None
        assert self._services is not None
        self._leaving.set()
        await asyncio.wait({self._task}, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        if self._task.done():
            self._task.result()
            return
        calls = self._services.database.waiting
        self.cut_off = f"not closed within {self._configuration.drain_timeout_s:g} s, {calls} database calls at work"
        logger.error("%s: %r", self.cut_off, self._services.executor)

    async def _live(self, opened: "asyncio.Future[Services]") -> None:
        try:
            async with open_services(self._configuration, kind=self._kind) as services:
                opened.set_result(services)
                await self._leaving.wait()
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)


def leave_at_once(message: str) -> NoReturn:
    """End the process though threads of it hang, for which Python would wait."""
    sys.stderr.write(f"{message}\n")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(CUT_OFF)
