"""The tables that waffle makes although its model is swapped: what they hold is kept, and they are gone."""

from importlib import import_module

import pytest
from django.apps import apps as live_apps
from django.contrib.auth.models import Group, User
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from apps.rollout.models import Flag

migration = import_module("apps.rollout.migrations.0002_drop_waffle_flag_tables")
ORPHANS = {"waffle_flag", "waffle_flag_users", "waffle_flag_groups"}


def tables():
    return set(connection.introspection.table_names())


@pytest.mark.django_db
def test_a_migrated_database_has_none_of_waffles_three_flag_tables():
    assert not tables() & ORPHANS
    assert {"rollout_flag", "waffle_switch", "waffle_sample"} <= tables()


@pytest.mark.django_db(transaction=True)
def test_flags_that_a_project_had_before_are_copied_with_their_users_and_groups():
    apps = (
        MigrationLoader(connection)
        .project_state([("rollout", "0001_initial"), ("waffle", "0004_update_everyone_nullbooleanfield")])
        .apps
    )
    with connection.schema_editor() as editor:
        migration.create_again(apps, editor)
    assert tables() >= ORPHANS
    user, group = User.objects.create_user("user"), Group.objects.create(name="pilots")
    old = apps.get_model("waffle", "Flag").objects.create(name="beta", everyone=None, percent="12.5", note="ours")
    old.users.add(user.pk)
    old.groups.add(group.pk)
    with connection.schema_editor() as editor:
        migration.copy_and_drop(apps, editor)
    assert not tables() & ORPHANS
    flag = Flag.objects.get()
    assert (flag.name, str(flag.percent), flag.note, flag.stage, flag.version) == ("beta", "12.5", "ours", "", 0)
    assert (list(flag.users.all()), list(flag.groups.all())) == ([user], [group])
    with connection.schema_editor() as editor:
        migration.copy_and_drop(apps, editor)
    assert Flag.objects.count() == 1, "without the tables there is nothing to do"


@pytest.mark.django_db(transaction=True)
def test_a_project_with_a_flag_model_of_its_own_is_left_alone(settings):
    settings.WAFFLE_FLAG_MODEL = "elsewhere.Flag"
    with connection.schema_editor() as editor:
        migration.create_again(live_apps, editor)
    assert not tables() & ORPHANS
