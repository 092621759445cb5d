"""The page on settings and the code that reads them say the same."""

import ast
import dataclasses

from project.configuration import Configuration
from tests.docs.pages import ROOT, code, page

SETTINGS = page("reference/settings.md")


def shown(default):
    match default:
        case bool():
            return f"`{str(default).lower()}`"
        case "":
            return "empty"
        case float():
            return f"`{default:g}`"
        case _:
            return f"`{default}`"


def test_every_bound_is_documented_with_its_default_unit_and_meaning_and_no_other():
    documented = [row for row in SETTINGS.rows() if row[0].startswith("`TURNOUT_") and len(row) == 4]
    assert sorted(documented) == sorted(
        [f"`TURNOUT_{bound.name.upper()}`", shown(bound.default), bound.metadata["unit"], bound.metadata["meaning"]]
        for bound in dataclasses.fields(Configuration)
    )


def test_every_variable_that_settings_read_from_the_environment_is_documented_and_no_other():
    tree = ast.parse((ROOT / "project" / "settings.py").read_text())
    read = {
        call.args[0].value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "env"
    }
    assert {code(row[0])[0] for row in SETTINGS.rows("The installation")} == read
