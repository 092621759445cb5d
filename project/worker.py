"""A process that executes runs and serves nothing: `manage.py run_worker`, and the batch for other tasks' workers."""

import asyncio
import signal
from collections.abc import Callable

from django.conf import settings

from project.composition import open_services
from project.configuration import Configuration
from project.life import STOPPING, CutOff, ServiceLife


def work(configuration: Configuration, ready: Callable[[], None]) -> None:
    """Execute runs until SIGTERM, SIGINT or SIGHUP; `ready` is called when runs are claimed.

    On a signal queued runs are left to others, running ones end or are handed over. Raises CutOff when something did
    not end in time.
    """
    loop = asyncio.new_event_loop()
    life = ServiceLife(configuration, kind="run_worker")
    loop.run_until_complete(_work(life, ready))
    if life.cut_off:
        raise CutOff(life.cut_off)  # and the loop stays open: closing it would wait for the threads that hang
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def _work(life: ServiceLife, ready: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def stop() -> None:
        if not told.is_set():  # however often the signal comes
            told.set()
            opening.cancel()

    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets SIGHUP
            loop.add_signal_handler(number, stop)
    opening = asyncio.create_task(life.begin(), name="opening")
    await asyncio.wait({opening})
    if opening.cancelled():
        return
    services = opening.result()
    ready()
    await told.wait()
    deadline = services.deadline()
    await services.drain(deadline)
    await life.end(deadline)


def execute_queued() -> None:
    """Open what executing needs, execute until nothing is queued, and close it: for a wake-up that some other worker of
    `django.tasks` runs. Returns after a run's longest time at the latest.
    """
    asyncio.run(_execute_queued(settings.CONFIGURATION))


async def _execute_queued(configuration: Configuration) -> None:
    async with open_services(configuration, kind="task") as services:
        await services.executor.wait_until_idle(configuration.run_timeout_s)
        await services.drain(services.deadline())
