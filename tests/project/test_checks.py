import dataclasses
from pathlib import Path

import environ
import pytest
from django.core.checks.registry import registry
from django.db import ConnectionHandler, connection

from project import checks

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local ext4 rw 0 0
//server/files /my\\040files cifs rw 0 0
"""


def ids(messages):
    return [message.id for message in messages]


def bounds(settings, **changes):
    settings.CONFIGURATION = dataclasses.replace(settings.CONFIGURATION, **changes)


def test_the_installation_of_make_run_is_fine():
    found = (checks.check_layer, checks.check_disk, checks.check_pool, checks.check_sessions)
    assert [message for check in found for message in check()] == []


def test_workers_that_tabs_hear_by_polling_only_are_warned_of(settings):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": checks.IN_MEMORY_LAYER}}
    assert checks.check_layer() == []
    bounds(settings, execution="workers")
    assert ids(checks.check_layer()) == ["turnout.W201"]
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer"}}
    assert checks.check_layer() == []


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/x", "ext4"),
        ("/home/a/x", "nfs4"),
        ("/home/local/x", "ext4"),
        ("/homely/x", "ext4"),
        ("/my files/x", "cifs"),
    ],
)
def test_the_disk_of_a_file_is_that_of_the_innermost_mount(path, kind):
    assert checks.file_system(Path(path), MOUNTS) == kind


def test_a_mount_over_another_hides_it():
    assert checks.file_system(Path("/home/x"), MOUNTS + "/dev/sdc1 /home xfs rw 0 0\n") == "xfs"


def test_sqlite_on_a_network_disk_is_an_error(settings, tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    monkeypatch.setattr(checks, "MOUNTS", mounts)
    monkeypatch.setitem(settings.DATABASES, "default", {"ENGINE": checks.SQLITE, "NAME": "/home/anna/x.sqlite3"})
    assert ids(checks.check_disk()) == ["turnout.E202"]
    monkeypatch.setitem(settings.DATABASES, "default", {"ENGINE": checks.SQLITE, "NAME": "/home/local/x.sqlite3"})
    assert checks.check_disk() == []


@pytest.mark.parametrize(
    ("pool", "found"),
    [
        (None, []),
        (True, ["turnout.W202"]),
        ({"min_size": 2, "max_size": 7}, ["turnout.W202"]),
        ({"min_size": 8}, []),
        ({"max_size": 8}, []),
    ],
)
def test_a_pool_smaller_than_the_threads_is_warned_of(settings, monkeypatch, pool, found):
    bounds(settings, database_threads=8)
    monkeypatch.setitem(settings.DATABASES, "default", {"ENGINE": checks.POSTGRESQL, "OPTIONS": {"pool": pool}})
    assert ids(checks.check_pool()) == found


def test_sessions_that_cannot_be_ended_are_warned_of(settings):
    settings.SESSION_ENGINE = checks.SIGNED_COOKIES
    assert ids(checks.check_sessions()) == ["turnout.W205"]


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("", []),
        ("redis://valkey:6379/0", ["turnout.W203"]),
        ("rediss://user@valkey/0", ["turnout.W203"]),
        ("redis://:secret@valkey:6379/0", []),
        ("unix:///run/valkey.sock", []),
    ],
)
def test_redis_without_a_password_is_warned_of_by_check_deploy(settings, url, found):
    settings.REDIS_URL = url
    assert ids(checks.check_redis_password()) == found
    assert checks.check_redis_password in registry.deployment_checks


@pytest.mark.services
@pytest.mark.django_db
def test_a_postgresql_that_answers_before_it_has_stored_is_warned_of(postgresql, settings, monkeypatch):
    for value, found in (("on", []), ("local", []), ("off", ["turnout.W204"])):
        database = environ.Env.db_url_config(postgresql.url)
        database["OPTIONS"] |= {"options": f"-c synchronous_commit={value}"}
        handler = ConnectionHandler({"default": database})
        monkeypatch.setattr(checks, "connections", handler)
        try:
            assert ids(checks.check_commits(databases=["default"])) == found
        finally:
            handler.close_all()


@pytest.mark.django_db
def test_sqlite_is_not_asked_for_what_only_postgresql_has():
    assert connection.vendor == "sqlite"
    assert checks.check_commits(databases=["default"]) == []
