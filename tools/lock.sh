#!/bin/sh
# Compiles requirements/*.txt from pyproject.toml: one lock for every platform and for Python 3.12 and up, with hashes.
# The development lock is bound to the versions of the production lock, so that tests run what production runs.
set -eu
cd "$(dirname "$0")/../requirements"
compile() {
    ../.venv/bin/python -m uv pip compile --quiet --universal --python-version 3.12 --generate-hashes \
        --custom-compile-command "make lock" --all-extras "$@" ../pyproject.toml
}
compile --output-file production.txt "$@"
compile --output-file development.txt --group ../pyproject.toml:dev --constraint production.txt "$@"
