"""What the audit commands print, and how they exit."""

import io
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.utils import timezone

from apps.chat.models import CommandReceipt
from apps.findings import Exit

COMMANDS = ["audit_cleanup", "audit_isolation"]
TITLES = {"audit_cleanup": "Clean-up", "audit_isolation": "Isolation"}


def run(command, *arguments):
    """Output and exit status."""
    out = io.StringIO()
    try:
        call_command(command, *arguments, stdout=out)
    except SystemExit as ended:
        return out.getvalue(), Exit(ended.code)
    return out.getvalue(), Exit.KEPT


@pytest.fixture
def old_receipt():
    """A fault of audit_cleanup."""
    at = timezone.now() - timedelta(hours=25)
    return CommandReceipt.objects.create(user_id=7, command_id="c", digest="d", at=at)


@pytest.mark.django_db
@pytest.mark.parametrize("command", COMMANDS)
def test_a_deployment_without_findings_is_status_0_and_every_promise_is_named(command):
    text, status = run(command)
    assert status is Exit.KEPT
    *lines, total = text.splitlines()
    assert all("  KEPT  " in line for line in lines)
    assert total == f"{TITLES[command]}: {len(lines)} kept, 0 broken."


@pytest.mark.django_db
def test_a_finding_is_status_1_with_the_next_step(old_receipt):
    text, status = run("audit_cleanup")
    assert status is Exit.BROKEN
    assert text.splitlines()[-1].endswith("broken.  Next: run it with --fix.")


@pytest.mark.django_db
def test_fix_closes_and_then_judges_what_is_left(old_receipt):
    assert run("audit_cleanup", "--fix")[1] is Exit.KEPT
    assert run("audit_cleanup")[1] is Exit.KEPT


@pytest.mark.django_db
@pytest.mark.parametrize("command", COMMANDS)
def test_machines_get_one_json_object_with_the_same_facts(command):
    text, status = run(command, "--json")
    report = json.loads(text)
    assert report["exit"] == status == 0
    assert report["kept"] == len(report["lines"]) > 0


@pytest.mark.django_db
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("arguments", [(), ("--fix",), ("--json",)])
def test_an_audit_that_cannot_ask_the_database_is_status_2_and_promises_nothing(command, arguments):
    def no_database(*_):
        raise OperationalError("the disk is on fire")

    with connection.execute_wrapper(no_database):
        text, status = run(command, *arguments)
    assert status is Exit.COULD_NOT_LOOK
    assert "KEPT" not in text
    if "--json" in arguments:
        assert json.loads(text)["exit"] == 2
    else:
        assert text.startswith(f"{TITLES[command]}: could not look: the database could not be asked")


def test_a_shell_sees_the_same_status_from_a_database_that_holds_no_turnout(tmp_path):
    root = Path(__file__).parents[2]
    environment = os.environ | {"DATABASE_URL": f"sqlite:///{tmp_path / 'empty.sqlite3'}", "DEBUG": "1"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    command = [sys.executable, "manage.py", "audit_cleanup"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    assert "no such table" in done.stdout
