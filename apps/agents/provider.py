"""The model that agents may use: none, or any provider of pydantic-ai, which is an optional extra.

Nothing of pydantic-ai is imported where no model is configured. One HTTP client serves the whole process; what belongs
to a user (messages, tokens) lives in the model that is bound to a run.
"""

import importlib
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, Self, cast

from apps.agents.base import AgentFailure, Model
from apps.vocabulary import Identity

MODULE = "apps.agents.pydantic_models"


class ModelUnavailable(AgentFailure):
    """The model gave no usable answer: it could not be reached, refused, stalled, or broke off. The text is public."""

    code: ClassVar[Literal["agent_error", "unavailable"]] = "unavailable"


class ModelNotConfigured(ValueError):  # noqa: N818 - names the state that was met
    """The settings name a model that cannot be used; raised while the process starts, naming the setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which model, and how much of everything one of its answers may take. No `model`: no model."""

    model: str = ""  # provider:name, as in openai:gpt-5-mini; with a base URL the name alone will do
    base_url: str = ""  # of a server that speaks OpenAI's protocol; empty for the provider's own
    api_key: str = ""
    timeout_s: float = 120.0  # seconds for one answer, retries included
    stall_timeout_s: float = 30.0  # seconds without a byte
    retries: int = 2  # of a request that was refused or lost before its answer began
    answer_tokens: int = 16_384  # tokens of one answer, reasoning included
    response_bytes: int = 16_777_216  # bytes of one answer
    connect_timeout_s: float = 5.0
    connections: int = 1_000  # to the provider, all runs of the process together
    by_agent: Mapping[str, str] = field(default_factory=dict)  # agent -> provider:name, where it is not `model`

    def __repr__(self) -> str:
        return f"<ModelSettings {self.model or 'no model'}>"  # never the key


class OpenModels(Protocol):
    """What the adapter opens once a process."""

    def bind(self, agent_name: str, identity: Identity) -> Model:
        """The model for one run."""
        ...


class _Adapter(Protocol):
    def open_models(self, settings: ModelSettings) -> AbstractAsyncContextManager[OpenModels]: ...


class ModelProvider:
    """Process lifetime: `async with`. Raises ModelNotConfigured on entering when the settings cannot be used."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._models: OpenModels | None = None
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"<ModelProvider {self._settings.model or 'no model'}, {'open' if self._models else 'closed'}>"

    @property
    def is_configured(self) -> bool:
        """Whether there is a model at all."""
        return bool(self._settings.model)

    async def __aenter__(self) -> Self:
        if self.is_configured:
            opened = _adapter().open_models(self._settings)
            self._models = await self._stack.enter_async_context(opened)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._models = None
        await self._stack.aclose()

    def model_for(self, agent_name: str, identity: Identity) -> Model | None:
        """The model for one run of that agent and user; None where none is configured."""
        if not self.is_configured:
            return None
        if self._models is None:
            raise RuntimeError("the model provider is not open; it is entered where the services are opened")
        return self._models.bind(agent_name, identity)


def _adapter() -> _Adapter:
    """The one door to pydantic-ai. Raises ModelNotConfigured where the extra is missing."""
    try:
        return cast("_Adapter", importlib.import_module(MODULE))
    except ImportError as error:
        raise ModelNotConfigured(
            "TURNOUT_MODEL is set, but the extra `models` is not installed: pip install 'turnout[models]', "
            f"or unset TURNOUT_MODEL to run without a model ({error})"
        ) from error
