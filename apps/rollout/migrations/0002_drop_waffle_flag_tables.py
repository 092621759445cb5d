"""Copies the flags that a project had in waffle's own tables, then drops the three tables.

Waffle creates them although the model is swapped. On PostgreSQL such orphans break the flush of every transactional
test: "cannot truncate a table referenced in a foreign key constraint".
"""

from typing import Any

from django.apps.registry import Apps
from django.conf import settings
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

_COPIED = (
    "name", "everyone", "percent", "testing", "superusers", "staff", "authenticated", "languages", "rollout",
    "note", "created", "modified",
)


def copy_and_drop(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if not _is_ours(schema_editor, present=True):
        return
    alias = schema_editor.connection.alias
    old_model: Any = apps.get_model("waffle", "Flag")
    new_model: Any = apps.get_model("rollout", "Flag")
    for old in old_model.objects.using(alias).order_by("id"):
        new = new_model.objects.using(alias).create(**{name: getattr(old, name) for name in _COPIED})
        for people, key in (("users", "user_id"), ("groups", "group_id")):
            # Row by row: both models are called Flag, so from a user either one may answer to "flag".
            before, now = getattr(old_model, people).through.objects, getattr(new_model, people).through.objects
            ids = before.using(alias).filter(flag_id=old.pk).values_list(key, flat=True)
            now.using(alias).bulk_create(now.model(**{"flag_id": new.pk, key: each}) for each in ids)
    schema_editor.delete_model(old_model)


def create_again(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """The tables come back empty: waffle's own migrations need them on their way back."""
    if _is_ours(schema_editor, present=False):
        schema_editor.create_model(apps.get_model("waffle", "Flag"))


def _is_ours(schema_editor: BaseDatabaseSchemaEditor, *, present: bool) -> bool:
    tables = schema_editor.connection.introspection.table_names()
    return settings.WAFFLE_FLAG_MODEL == "rollout.Flag" and ("waffle_flag" in tables) is present


class Migration(migrations.Migration):
    dependencies = [
        ("rollout", "0001_initial"),
        ("waffle", "0004_update_everyone_nullbooleanfield"),
    ]

    operations = [migrations.RunPython(copy_and_drop, create_again)]
