#!/usr/bin/env python
"""Django's command line for Turnout."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        # 2 of the commands' exit codes: it could not look. A traceback would bury what has to be set.
        print(f"turnout: {error}", file=sys.stderr)  # noqa: T201 - the command line's own output
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell says it; where it was interrupted is of interest to nobody
