"""Answers machines that ask how this process is: `/healthz` (it lives), `/readyz` (send it work), `/metrics`.

Django calls views without arguments of ours, so this file is one of the few that read the services slot.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Protocol, cast

from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from apps.execution.apps import execution_config
from apps.operations.metrics import CONTENT_TYPE, Metrics
from apps.realtime.database import DatabaseThreads

logger = logging.getLogger(__name__)


class NotReady(Exception):  # noqa: N818 - an answer, not a fault
    """A part cannot take work now; the message says why, in words that anybody may read."""


Check = Callable[[], Awaitable[None]]


class Readiness:
    """All checks of a process, asked side by side, each within `timeout_s` seconds.

    What fails of `degrading` is said, and is no reason to send work elsewhere: it fails in all processes at once, and
    without it they serve as well, only slower.
    """

    def __init__(
        self, checks: Mapping[str, Check], timeout_s: float, degrading: Mapping[str, Check] = MappingProxyType({})
    ) -> None:
        self._checks = dict(checks)
        self._degrading = dict(degrading)
        self._timeout_s = timeout_s

    async def failures(self) -> dict[str, str]:
        """What is not ready and why; empty when everything is."""
        return await self._ask_all(self._checks)

    async def degradations(self) -> dict[str, str]:
        """What is missing, though work can be taken without it, and why."""
        return await self._ask_all(self._degrading)

    async def _ask_all(self, checks: Mapping[str, Check]) -> dict[str, str]:
        answers = await asyncio.gather(*(self._ask(name, check) for name, check in checks.items()))
        return {name: why for name, why in zip(checks, answers, strict=True) if why is not None}

    async def _ask(self, name: str, check: Check) -> str | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await check()
        except NotReady as why:
            return str(why)
        except TimeoutError:
            return f"no answer within {self._timeout_s:g} s"
        except Exception:
            # The cause may hold addresses and passwords: the log gets it, the answer names the part only.
            logger.exception("the check of %s failed", name)
            return "failed; see the log"
        return None


def database_check(database: DatabaseThreads) -> Check:
    """A query goes through the same threads that all work goes through."""

    async def check() -> None:
        await database.call(_select_one)

    return check


def condition_check(ready: Callable[[], bool], why_not: str) -> Check:
    """A plain fact of this process, such as "not draining" or "the log's writer lives"."""

    async def check() -> None:
        if not ready():
            raise NotReady(why_not)

    return check


class HealthServices(Protocol):
    """What this file needs of the process' services. `metrics` is None where the setting forbids it."""

    @property
    def readiness(self) -> Readiness:
        """The checks that `/readyz` asks."""
        ...

    @property
    def metrics(self) -> Metrics | None:
        """The page of `/metrics`."""
        ...


@require_safe
@never_cache
async def healthz(_request: HttpRequest) -> HttpResponse:
    """Status 200 as long as the process answers at all. Not a reason to send it work: that is `/readyz`."""
    return JsonResponse({"status": "ok"})


@require_safe
@never_cache
async def readyz(_request: HttpRequest) -> HttpResponse:
    """Status 200 if this process can take work, else 503 with the parts that cannot.

    `degraded` names what is missing though work can be taken.
    """
    services = _services()
    if services is None:
        failures = {"services": "not open; start the server with manage.py serve"}
        return JsonResponse({"status": "unavailable", "failed": failures}, status=503)
    failures, degraded = await asyncio.gather(services.readiness.failures(), services.readiness.degradations())
    missing = {"degraded": degraded} if degraded else {}
    if failures:
        return JsonResponse({"status": "unavailable", "failed": failures, **missing}, status=503)
    return JsonResponse({"status": "ok", **missing})


@require_safe
@never_cache
async def metrics(_request: HttpRequest) -> HttpResponse:
    """The metrics of this process in Prometheus' text format; not found unless the setting allows it."""
    services = _services()
    if services is None or services.metrics is None:
        raise Http404("metrics are off; set TURNOUT_METRICS=true")
    return HttpResponse(services.metrics.exposition(), content_type=CONTENT_TYPE)


def _services() -> HealthServices | None:
    return cast("HealthServices | None", getattr(execution_config(), "services", None))


def _select_one() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()
