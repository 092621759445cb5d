"""pytest-playwright is told which Chromium to start: its own download is only one of the places to get one."""

import os
from typing import Any

import pytest

from tools.chromium import find_chromium


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    path = find_chromium()
    assert path, "no Chromium: `make test` brings one, or name it in the environment variable CHROMIUM"
    # Its calls home fail one after the other on a machine without the internet, and slow each page down.
    arguments = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # root has no other way to start it
    return {**browser_type_launch_args, "executable_path": path, "args": arguments}
