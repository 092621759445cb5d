"""Which agents there are. Filled while the process starts, then frozen.

A class that appears later would be known to one process and unknown to the next, and a name that changes its
class would change runs that are already queued.
"""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.utils.module_loading import import_string

from apps.agents.assistant import AssistantAgent
from apps.agents.base import Agent, AgentDescription, AgentUnknown
from apps.agents.faulty import FaultyAgent
from apps.agents.metronome import MetronomeAgent
from apps.agents.supervisor import SupervisorAgent

__all__ = [
    "AgentAlreadyRegistered",
    "AgentClassRegistry",
    "AgentDescription",
    "AgentNotUsable",
    "AgentUnknown",
    "RegistryFrozen",
    "build_registry",
]

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)


class RegistryFrozen(RuntimeError):  # noqa: N818 - names the state that was met
    """A class came after start-up."""


class AgentAlreadyRegistered(ValueError):  # noqa: N818 - names the state that was met
    """Two classes claim one name."""


class AgentNotUsable(TypeError):  # noqa: N818 - names the state that was met
    """A class, or the dotted path of one, that cannot be registered; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class _Registration:
    agent_class: type[Agent]
    build: Callable[[], Agent]


class AgentClassRegistry:
    """Agent classes by name. Holds classes only: every run gets an instance of its own from `create`."""

    def __init__(self) -> None:
        self._registrations: dict[str, _Registration] = {}
        self._frozen = False

    def __repr__(self) -> str:
        state = "frozen" if self._frozen else "open"
        return f"<AgentClassRegistry {state}, {len(self._registrations)} agents>"

    def register(self, agent_class: type[Agent], build: Callable[[], Agent] | None = None) -> None:
        """Make `agent_class` known by its `name`. `build` makes an instance where the class alone is not
        enough.

        Raises RegistryFrozen after start-up, AgentAlreadyRegistered for a second class of one name,
        AgentNotUsable for a class without name, title, description or `run`.
        """
        _check_usable(agent_class)
        name = agent_class.name
        if self._frozen:
            raise RegistryFrozen(
                f"agent {name!r} came after start-up; name the class by its dotted path in the setting TURNOUT_AGENTS"
            )
        known = self._registrations.get(name)
        if known is not None:
            raise AgentAlreadyRegistered(
                f"agent {name!r} is {_path(known.agent_class)} already; give {_path(agent_class)} another name"
            )
        self._registrations[name] = _Registration(agent_class, build or agent_class)

    def freeze(self) -> None:
        """End of start-up: from here on the set of agents never changes."""
        self._frozen = True

    def create(self, name: str) -> Agent:
        """A new instance of the agent `name`, for one run. Raises AgentUnknown."""
        registration = self._registrations.get(name)
        if registration is None:
            raise AgentUnknown(f"there is no agent {name[:64]!r}; there are: {', '.join(sorted(self._registrations))}")
        return registration.build()

    def describe(self) -> tuple[AgentDescription, ...]:
        """All agents in the order of their registration; the first is the default."""
        return tuple(
            AgentDescription(
                name=registration.agent_class.name,
                title=registration.agent_class.title,
                description=registration.agent_class.description,
                restartable=registration.agent_class.restartable,
                max_tokens=registration.agent_class.max_tokens,
            )
            for registration in self._registrations.values()
        )


def build_registry(extra_dotted_paths: Sequence[str] = (), *, faulty_allowed: bool) -> AgentClassRegistry:
    """The built-in agents and those named by dotted path, frozen. Raises AgentNotUsable,
    AgentAlreadyRegistered.
    """
    registry = AgentClassRegistry()
    registry.register(AssistantAgent)
    registry.register(SupervisorAgent, lambda: SupervisorAgent(registry))
    registry.register(MetronomeAgent)
    if faulty_allowed:
        registry.register(FaultyAgent)
    for dotted_path in extra_dotted_paths:
        registry.register(_import_agent(dotted_path))
    registry.freeze()
    return registry


def _import_agent(dotted_path: str) -> type[Agent]:
    try:
        found = import_string(dotted_path)
    except ImportError as error:
        raise AgentNotUsable(f"agent {dotted_path!r} cannot be imported: {error}") from error
    if not isinstance(found, type) or not issubclass(found, Agent):
        raise AgentNotUsable(f"{dotted_path!r} is not a subclass of apps.agents.base.Agent")
    return found


def _check_usable(agent_class: type[Agent]) -> None:
    path = _path(agent_class)
    for attribute in ("name", "title", "description"):
        value = getattr(agent_class, attribute, None)
        if not isinstance(value, str) or not value.strip():
            raise AgentNotUsable(f"{path} has no {attribute}; set it on the class as text")
    if not _NAME.fullmatch(agent_class.name):
        raise AgentNotUsable(
            f"{path}: name {agent_class.name!r} must be 1-32 of a-z, 0-9, - and _, and begin with a letter"
        )
    if inspect.isabstract(agent_class):
        raise AgentNotUsable(f"{path} does not define {', '.join(sorted(agent_class.__abstractmethods__))}")


def _path(agent_class: type[Agent]) -> str:
    return f"{agent_class.__module__}.{agent_class.__qualname__}"
