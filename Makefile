# Every target sets itself up from a fresh clone: the only thing needed is a Python 3.12 or 3.13 somewhere.
HOST ?= 127.0.0.1
PORT ?= 8000
PYTHON ?=
export HOST PORT PYTHON
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help run test proof simulate bench screenshots lint format lock release development clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

run: ## start Turnout with a demo user; HOST and PORT say where
	@tools/environment.sh production && exec .venv/bin/python -m tools.run

test: development ## all that must hold before a change lands: style, types, layers, tests with real servers and browser
	@exec .venv/bin/python -m tools.check

proof: development ## the tests with long time budgets, in parts; PART=name runs one, LIST=1 says what is left
	@exec .venv/bin/python -m tools.proof $(if $(PART),--part $(PART)) $(if $(LIST),--list)

simulate: development ## ten million seeded schedules of log, cursor and tabs; FROM and COUNT choose others
	@exec .venv/bin/python -m tests.realtime.simulate $(if $(FROM),--from $(FROM)) $(if $(COUNT),--count $(COUNT))

bench: development ## measure delivery beside the singletons and a bare sender
	@exec .venv/bin/python -m benchmarks

screenshots: development ## make the pictures of the pages in docs/pictures
	@exec .venv/bin/python -m tools.screenshots

lint: development ## the part of `make test` that runs no test
	@exec .venv/bin/python -m tools.check --lint

format: development ## let ruff write the code's layout
	@.venv/bin/python -m ruff check --quiet --select I --fix . && exec .venv/bin/python -m ruff format .

lock: development ## compile requirements/ from pyproject.toml; UPGRADE=--upgrade takes newer versions
	@exec tools/lock.sh $(UPGRADE)

release: development ## the source archive of this commit, in var/release
	@exec .venv/bin/python -m tools.release

development:
	@tools/environment.sh development

clean: ## remove what the targets made, but the data in var/
	@rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
		node_modules apps/chat/static/vendor staticfiles test-results
