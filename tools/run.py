"""`make run`: everything that a new clone lacks, then the server, on HOST and PORT.

One process for all of it: Django takes a second to start, and a second `make run` is to be there at once.
"""

import io
import os
import sys

import django
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command


def main() -> int:
    """Serves until it is told to stop. Exit 1, with one line, for an address that is taken or not ours."""
    os.environ["DEBUG"] = "1"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    try:
        django.setup()
    except (ImproperlyConfigured, ValueError) as error:
        return _fail(f"the settings cannot be used: {error}")
    # After the set-up: these import models.
    from django.conf import settings  # noqa: PLC0415
    from django.db import connections  # noqa: PLC0415

    from project.server import AddressTaken, listen  # noqa: PLC0415

    try:
        listen(settings.HOST, settings.PORT).close()
    except AddressTaken as error:
        return _fail(f"{error.strerror}; choose another with make run PORT={settings.PORT + 1}")
    except OverflowError as error:
        return _fail(f"PORT={settings.PORT}: {error}")
    try:
        call_command("fetch_browser_libraries", stdout=io.StringIO())
    except CommandError as error:
        _fail(str(error))  # answers are plain text without them, which is no reason to stop
    call_command("compile_translations", verbosity=0)
    call_command("migrate", verbosity=0)
    call_command("demo_user")
    connections.close_all()
    try:
        call_command("serve", host=settings.HOST, port=settings.PORT)
    except CommandError as error:
        return _fail(str(error))
    return 0


def _fail(message: str) -> int:
    print(f"turnout: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell says it
