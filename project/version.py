"""Turnout's version, as pyproject.toml states it."""

import tomllib
from pathlib import Path

_PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
VERSION: str = tomllib.loads(_PYPROJECT.read_text())["project"]["version"]
