"""Fixtures of the chat's tests: two users with a browser and a program each, and the open services."""

import dataclasses
from types import SimpleNamespace

import pytest

from apps.agents.registry import build_registry
from apps.execution.apps import execution_config
from project.configuration import Configuration
from tests.chat.calling import Person
from tests.chat.chat_room import Room


@pytest.fixture
def services(monkeypatch):
    room = Room()

    def allow(**changes):
        room.plan = dataclasses.replace(room.plan, **changes)

    open_services = SimpleNamespace(
        allow=allow,
        conversation=room.conversation,
        runs=room.runs,
        agents=build_registry(faulty_allowed=False),
        configuration=Configuration(),
    )
    monkeypatch.setattr(execution_config(), "_services", open_services)
    return open_services


@pytest.fixture
def ann(services):
    return Person("ann")


@pytest.fixture
def bob(services):
    return Person("bob")
