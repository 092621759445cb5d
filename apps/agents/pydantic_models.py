"""Models of pydantic-ai behind our `Model`. The only module that imports pydantic-ai; reached through the provider.

Everything that a provider sends is somebody else's: it may stall, end in the middle, be a gigabyte, be garbage. Every
such fault becomes one ModelUnavailable with a text of ours; the provider's own text may quote the prompt or the key,
and goes nowhere.
"""

import importlib
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2
from openai import OpenAIError
from pydantic_ai import exceptions as faults
from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model as PydanticModel
from pydantic_ai.models import ModelRequestParameters, infer_model
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
from pydantic_ai.tools import ToolDefinition

from apps.agents.base import HistoryMessage, ModelDelta, TokenCount, ToolCallRequest, ToolDeclaration
from apps.agents.history import paired
from apps.agents.provider import ModelNotConfigured, ModelSettings, ModelUnavailable
from apps.vocabulary import Identity

logger = logging.getLogger(__name__)

_ANTHROPIC_PREFIX = "anthropic:"
_OPENAI_PREFIXES = ("openai:", "openai-chat:")


class AnswerTooLarge(Exception):  # noqa: N818 - caught here, told as ModelUnavailable
    """A response has more bytes than one answer may have, or hides them in a compression that nobody asked for."""


@asynccontextmanager
async def open_models(settings: ModelSettings) -> AsyncIterator["OpenPydanticModels"]:
    """Open the configured model, and close all its connections again. Raises ModelNotConfigured."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(_http_client(settings))
        models = {name: _usable_model(name, settings, client) for name in {settings.model, *settings.by_agent.values()}}
        for model in models.values():
            await stack.enter_async_context(model)
        by_agent = {agent: models[name] for agent, name in settings.by_agent.items()}
        yield OpenPydanticModels(models[settings.model], by_agent, settings)


def _usable_model(name: str, settings: ModelSettings, client: httpx2.AsyncClient) -> PydanticModel:
    try:
        return _model(name, settings, client)
    except (faults.UserError, OpenAIError) as error:
        # What pydantic-ai says of a missing key names its own variables and ours is another.
        if "API_KEY" in str(error) and not settings.api_key:
            raise ModelNotConfigured(
                f"the model {name!r} needs a key: set TURNOUT_MODEL_API_KEY, or unset TURNOUT_MODEL to run without one"
            ) from error
        raise ModelNotConfigured(f"the model {name!r} cannot be used: {error}") from error
    except (ImportError, ValueError) as error:
        raise ModelNotConfigured(f"the model {name!r} cannot be used: {error}") from error


def _model(full_name: str, settings: ModelSettings, client: httpx2.AsyncClient) -> PydanticModel:
    prefix = next((known for known in _OPENAI_PREFIXES if full_name.startswith(known)), "")
    name = full_name.removeprefix(prefix)
    provider: Any
    if settings.base_url and httpx2.URL(settings.base_url).scheme not in ("http", "https"):
        raise ValueError(f"TURNOUT_MODEL_BASE_URL {settings.base_url!r} is not an http or https address")
    if full_name.startswith(_ANTHROPIC_PREFIX):
        return _anthropic_model(full_name.removeprefix(_ANTHROPIC_PREFIX), settings, client)
    if settings.base_url:
        provider = OpenAICompatibleProvider(
            "openai-compatible", base_url=settings.base_url, api_key=settings.api_key or None, http_client=client
        )
    elif prefix:
        provider = OpenAIProvider(api_key=settings.api_key or None, http_client=client)
    else:
        # Any other provider reads its key from its own environment variable and brings its own client.
        return infer_model(full_name)
    # Chat Completions and not Responses, pydantic-ai's own choice for `openai:`: that one stores every conversation at
    # the provider unless told otherwise. A stream without a finish_reason was cut, whatever its last words are.
    profile = OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True)
    return OpenAIChatModel(name, provider=provider, profile=profile)


def _anthropic_model(name: str, settings: ModelSettings, client: httpx2.AsyncClient) -> PydanticModel:
    module = importlib.import_module("pydantic_ai.models.anthropic")  # its SDK is part of the extra, and takes a second
    providers = importlib.import_module("pydantic_ai.providers.anthropic")
    provider = providers.AnthropicProvider(
        api_key=settings.api_key or None, base_url=settings.base_url or None, http_client=client
    )
    model: PydanticModel = module.AnthropicModel(name, provider=provider)
    return model


def _http_client(settings: ModelSettings) -> httpx2.AsyncClient:
    async def bound(response: httpx2.Response) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise AnswerTooLarge("compressed without being asked")
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _BoundedStream(response.stream, settings.response_bytes)

    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(settings.stall_timeout_s, connect=settings.connect_timeout_s),
        limits=httpx2.Limits(max_connections=settings.connections),
        headers={"Accept-Encoding": "identity"},
        # The client is shared by all users: a cookie that came with one user's answer must not go out with another's.
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        event_hooks={"response": [bound]},
    )


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, max_bytes: int) -> None:
        self._stream = stream
        self._bytes_left = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._bytes_left -= len(chunk)
            if self._bytes_left < 0:
                raise AnswerTooLarge("more bytes than one answer may have")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


@dataclass(frozen=True, slots=True)
class OpenPydanticModels:
    """Models of pydantic-ai, open for a process."""

    model: PydanticModel
    by_agent: Mapping[str, PydanticModel]
    settings: ModelSettings

    def bind(self, agent_name: str, identity: Identity) -> "BoundModel":
        """The model for one run."""
        return BoundModel(self.by_agent.get(agent_name, self.model), self.settings, agent_name, identity)


@dataclass(frozen=True, slots=True)
class BoundModel:
    """A model bound to one run. What it sends names neither user nor thread."""

    model: PydanticModel
    settings: ModelSettings
    agent_name: str
    identity: Identity

    async def stream(
        self,
        instructions: str,
        messages: Sequence[HistoryMessage],
        tools: Sequence[ToolDeclaration],
        usage: TokenCount,
    ) -> AsyncIterator[ModelDelta]:
        """Stream one answer, then the tool calls it asks for. Raises ModelUnavailable."""
        with self._faults_named():
            async with model_request_stream(
                self.model,
                _request(instructions, messages),
                model_settings={
                    "max_tokens": self.settings.answer_tokens,
                    "timeout": self.settings.stall_timeout_s,
                    "request_timeout": self.settings.timeout_s,
                    "max_retries": self.settings.retries,
                },
                model_request_parameters=ModelRequestParameters(function_tools=[_tool(tool) for tool in tools]),
                instrument=False,
            ) as response:
                words = 0
                try:
                    async for event in response:
                        delta = _delta(event)
                        if delta is not None:
                            words += len((delta.text or delta.reasoning).split())
                            yield delta
                finally:
                    # Also of an answer that was cut or cancelled: its tokens are spent. Servers that report none are
                    # counted as offline agents are, a token a word.
                    spent = response.usage
                    usage.add(input_tokens=spent.input_tokens, output_tokens=spent.output_tokens or words)
                for part in response.get().parts:
                    if isinstance(part, ToolCallPart):
                        call = ToolCallRequest(part.tool_call_id, part.tool_name, part.args_as_json_str())
                        yield ModelDelta(tool_call=call)

    @contextmanager
    def _faults_named(self) -> Iterator[None]:
        try:
            yield
        except _FAULTS as fault:
            # The type and not the text: providers quote prompts and keys in theirs.
            logger.warning(
                "model call of agent %s failed for user %s: %s, status %s",
                self.agent_name,
                self.identity.user_id,
                type(fault).__name__,
                getattr(fault, "status_code", None),
            )
            raise ModelUnavailable(_public_text(fault)) from fault


_FAULTS = (
    *(faults.AgentRunError, faults.UserError, OpenAIError, httpx2.HTTPError, AnswerTooLarge),
    # What the libraries trip over where valid JSON has another shape than they expect: `data: [1]` is enough.
    *(AttributeError, LookupError, RecursionError, TypeError, ValueError),
)


def _public_text(fault: Exception) -> str:
    return next((text for kinds, text in _PUBLIC_TEXTS if isinstance(fault, kinds)), _UNREADABLE)


_UNREADABLE = "The model could not answer, or what it sent cannot be read. Try again."
# The first row that fits: the kinds are subclasses of each other.
_PUBLIC_TEXTS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    (
        (faults.ModelRateLimitError,),
        "The model's provider is getting too many requests. Try again in a minute.",
    ),
    (
        (faults.ModelQuotaExceededError,),
        "This server's quota at the model's provider is used up. Its operator has to look at it.",
    ),
    (
        (faults.ModelAuthenticationError,),
        "The model's provider refused this server's key. Its operator has to check TURNOUT_MODEL_API_KEY.",
    ),
    (
        (faults.ModelNotFoundError,),
        "The provider does not know the configured model. The operator has to check TURNOUT_MODEL.",
    ),
    (
        (faults.ModelContextWindowExceededError,),
        "The conversation is too long for the model. Start a new one, or ask with less text.",
    ),
    (
        (faults.ModelRequestTimeout, faults.ModelTimeoutError, httpx2.TimeoutException),
        "The model took too long to answer. Try again.",
    ),
    (
        (faults.ContentFilterError,),
        "The model's provider declined to answer this. Ask in other words.",
    ),
    (
        (AnswerTooLarge,),
        "The model's answer was larger than this server takes. Ask for less at once.",
    ),
    (
        (faults.ModelRequestRejectedError, faults.UserError),
        "The model's provider refused the request. If it happens again, tell the operator.",
    ),
    (
        (faults.ModelConnectionError, httpx2.TransportError),
        "The connection to the model broke before its answer was complete. Try again.",
    ),
)


def _delta(event: object) -> ModelDelta | None:
    match event:
        case PartStartEvent(part=TextPart(content=text)) if text:
            return ModelDelta(text=text)
        case PartDeltaEvent(delta=TextPartDelta(content_delta=text)) if text:
            return ModelDelta(text=text)
        case PartStartEvent(part=ThinkingPart(content=text)) if text:
            return ModelDelta(reasoning=text)
        case PartDeltaEvent(delta=ThinkingPartDelta(content_delta=text)) if text:
            return ModelDelta(reasoning=text)
    return None


def _tool(tool: ToolDeclaration) -> ToolDefinition:
    return ToolDefinition(name=tool.name, description=tool.description, parameters_json_schema=dict(tool.parameters))


def _request(instructions: str, messages: Sequence[HistoryMessage]) -> list[ModelMessage]:
    request: list[ModelMessage] = []
    names: dict[str, str] = {}
    for message in paired(messages):
        if message.role == "user":
            request.append(ModelRequest(parts=[UserPromptPart(message.text)], instructions=instructions))
        elif message.role == "assistant":
            calls = [
                ToolCallPart(call["function"]["name"], call["function"]["arguments"], tool_call_id=call["id"])
                for call in message.tool_calls
            ]
            names |= {call.tool_call_id: call.tool_name for call in calls}
            text = [TextPart(message.text)] if message.text else []
            request.append(ModelResponse(parts=[*text, *calls]))
        else:
            tool_call_id = message.tool_call_id or ""
            result = ToolReturnPart(names.get(tool_call_id, "unknown"), message.text, tool_call_id=tool_call_id)
            request.append(ModelRequest(parts=[result], instructions=instructions))
    return request
