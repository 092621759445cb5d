"""`manage.py run_worker`: executes runs on this machine, beside any number of others."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from apps.agents.provider import ModelNotConfigured
from project.life import CutOff, leave_at_once
from project.worker import work


class Command(BaseCommand):
    help = "Execute runs on this machine; SIGTERM drains: queued runs are left to others, running ones end, exit 0."

    requires_system_checks = ()  # on SQLite one of them says less well what is missing

    def handle(self, **_: Any) -> None:
        if connection.vendor != "postgresql":
            raise CommandError(
                "run_worker needs PostgreSQL: the machines meet in the database, and SQLite's file has one. "
                "Set DATABASE_URL=postgres://user:password@host/name, or execute in the server (manage.py serve)."
            )
        if settings.CONFIGURATION.execution != "workers":
            raise CommandError(
                "set TURNOUT_EXECUTION=workers, here and for every `manage.py serve`, and run `manage.py migrate`: "
                "otherwise the servers execute runs themselves, and wake no worker."
            )
        self.check()
        connection.close()

        def ready() -> None:
            self.stdout.write("Turnout's worker claims runs.")
            self.stdout.flush()

        try:
            work(settings.CONFIGURATION, ready)
        except ModelNotConfigured as error:
            raise CommandError(str(error)) from None
        except CutOff as error:
            leave_at_once(f"Turnout's worker was cut off: {error}.")
        self.stdout.write("Turnout's worker has drained and closed.")
