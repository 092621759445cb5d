#!/bin/sh
# `make run`: everything that a new clone lacks, then the server in the foreground, on HOST and PORT.
set -eu
cd "$(dirname "$0")/.."
tools/environment.sh production
export DEBUG=1
# Answers are plain text without the libraries: said in one line, and no reason to stop.
.venv/bin/python manage.py fetch_browser_libraries --verbosity 0 || true
.venv/bin/python manage.py migrate --verbosity 0
.venv/bin/python manage.py demo_user
exec .venv/bin/python manage.py serve --host "$HOST" --port "$PORT"
