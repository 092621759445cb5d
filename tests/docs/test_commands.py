"""The page on commands names every command of ours, with every option, and every line of the audits."""

import re

import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand

from apps.chat.folding import MessageFold
from apps.execution.recovery import Recovery
from apps.operations.cleanup import Cleanup, CleanupLimits
from apps.operations.isolation import isolation_audit
from apps.realtime.log import EventLog, LogLimits
from apps.realtime.retention import RetentionLimits
from tests.docs.pages import ROOT, all_pages, page

MAKE = re.compile(r"\bmake ([a-z-]+)")
COMMANDS = page("reference/commands.md")
OURS = {name: app for name, app in get_commands().items() if str(app).startswith(("apps.", "project"))}


def section(command):
    _, found, rest = COMMANDS.text.partition(f"## `manage.py {command}`\n")
    assert found, f"{command} has no section"
    return re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def options(command):
    """The options that the command has beyond Django's own."""
    parser = load_command_class(OURS[command], command).create_parser("manage.py", command)
    djangos = BaseCommand().create_parser("manage.py", command)
    known = {option for action in djangos._actions for option in action.option_strings}
    return {option for action in parser._actions for option in action.option_strings} - known


def test_every_command_has_a_section_and_every_section_a_command():
    documented = re.findall(r"^## `manage\.py (\w+)`$", COMMANDS.text, re.MULTILINE)
    assert sorted(documented) == sorted(OURS)


@pytest.mark.parametrize("command", sorted(OURS))
def test_every_option_of_a_command_stands_in_its_section(command):
    assert {option for option in options(command) if f"`{option}" not in section(command)} == set()


def test_every_line_of_the_audits_is_explained_in_the_order_in_which_it_is_shown():
    log = EventLog(LogLimits())
    limits = CleanupLimits(silent_s=1, run_deadline_s=1, receipt_hours=1, retention=RetentionLimits())
    cleanup = Cleanup(limits, log, Recovery(log, MessageFold(log))).audit()
    for command, audit in (("audit_cleanup", cleanup), ("audit_isolation", isolation_audit())):
        explained = [row[0] for row in COMMANDS.rows(f"`manage.py {command}`")]
        assert explained == [check.name for check in audit.checks]


def test_every_command_that_a_page_tells_to_run_exists():
    known = set(get_commands())
    told = {
        (one.path.name, command)
        for one in all_pages()
        for command in re.findall(r"manage\.py ([a-z_]+)", one.text)
        if command not in known
    }
    assert told == set()


def test_every_make_target_that_a_page_tells_to_run_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    prose = {target for one in all_pages() for target in re.findall(r"`make ([a-z-]+)", one.prose)}
    shell = {target for one in all_pages() for block in one.fences("sh") for target in MAKE.findall(block)}
    assert prose | shell <= targets
