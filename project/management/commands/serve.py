"""`manage.py serve`: the server, with Turnout's life cycle."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.agents.provider import ModelNotConfigured
from project.life import CutOff, leave_at_once
from project.memory import in_words


class Command(BaseCommand):
    help = "Serve HTTP and sockets with Daphne; SIGTERM drains: tabs are told to come back, runs end, exit 0."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default=settings.HOST, help="address to listen on (HOST, default 127.0.0.1)")
        parser.add_argument("--port", type=int, default=settings.PORT, help="port (PORT, default 8000); 0: a free one")

    def handle(self, *, host: str, port: int, **_: Any) -> None:
        from project.server import AddressTaken, listen, serve  # noqa: PLC0415 - imports Twisted's reactor, once

        try:
            listening = listen(host, port)
        except AddressTaken as error:
            raise CommandError(f"{error.strerror}. Choose another with PORT=8001 or --port 8001.") from None
        bound_host, bound_port = listening.getsockname()[:2]
        if ":" in bound_host:
            bound_host = f"[{bound_host}]"

        def ready() -> None:
            self.stdout.write(f"Turnout serves http://{bound_host}:{bound_port}/")
            self.stdout.write(f"It holds {in_words(settings.CONFIGURATION)}.")
            self.stdout.flush()

        try:
            serve(settings.CONFIGURATION, listening, ready)
        except AddressTaken as error:
            raise CommandError(str(error.strerror)) from None
        except ModelNotConfigured as error:
            raise CommandError(str(error)) from None
        except CutOff as error:
            leave_at_once(f"Turnout was cut off: {error}.")
        self.stdout.write("Turnout has drained and closed.")
