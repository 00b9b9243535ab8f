"""A provider's models, against a real server that answers well or badly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import pytest
import yarl
from pydantic import SecretStr
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import (
    InstructionPart,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    SystemPromptPart,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from kgents.agents.models import openai_chat
from kgents.agents.models.chat_client import Session
from kgents.agents.models.registry import ModelRegistry, translate
from kgents.config import ProviderSettings, Settings
from kgents.errors import KgentsError, ModelFailed, ModelTimeout
from kgents.telemetry import traces
from tests.support.ports import free_port
from tests.support.upstream import SECRET_IN_ANSWERS, Upstream, serve_upstream

KEY = "sk-our-secret"
TIMEOUT = 0.5
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with serve_upstream() as server:
        yield server


@pytest.fixture
async def registry(upstream: Upstream) -> AsyncIterator[ModelRegistry]:
    opened = registry_for(upstream.url)
    yield opened
    await opened.aclose()


def registry_for(url: str) -> ModelRegistry:
    provider = ProviderSettings.model_validate({"base_url": url, "api_key": SecretStr(KEY)})
    return ModelRegistry(Settings(providers={"local": provider}), timeout=TIMEOUT)


HISTORY: list[ModelMessage] = [ModelRequest([UserPromptPart("the tenant's private text")])]


async def ask(registry: ModelRegistry, model: str, settings: ModelSettings | None = None) -> ModelResponse:
    """The answer; failures as the runner shows them."""
    try:
        return await registry.resolve(f"local:{model}").request(HISTORY, settings, ModelRequestParameters())
    except Exception as error:
        raise translate(error) from error


def piece_of(event: object) -> str:
    return (
        event.delta.content_delta
        if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta)
        else ""
    )


async def stream(registry: ModelRegistry, model: str) -> tuple[list[str], ModelResponse]:
    """The pieces of a streamed answer and the whole; failures as the runner shows them."""
    pieces: list[str] = []
    try:
        async with registry.resolve(f"local:{model}").request_stream(HISTORY, None, ModelRequestParameters()) as answer:
            pieces.extend([piece_of(event) async for event in answer])
            return pieces, answer.get()
    except Exception as error:
        raise translate(error) from error


async def test_answers_with_the_usage_that_the_provider_reports(registry: ModelRegistry) -> None:
    response = await ask(registry, "answer")
    assert response.parts == [TextPart("Hello from upstream")]
    assert (response.usage.input_tokens, response.usage.output_tokens) == (11, 3)


async def test_streams(registry: ModelRegistry) -> None:
    pieces, response = await stream(registry, "answer")
    assert response.parts == [TextPart("Hello from upstream")]
    assert [piece for piece in pieces if piece] == ["from ", "upstream"]
    assert (response.usage.input_tokens, response.usage.output_tokens) == (11, 3)


@pytest.mark.parametrize("call", [ask, stream])
async def test_a_provider_that_reports_no_usage_has_no_values(registry: ModelRegistry, call: object) -> None:
    if call is ask:
        response = await ask(registry, "no-usage")
    else:
        _, response = await stream(registry, "no-usage")
    assert not response.usage.has_values()


async def test_calls_tools(registry: ModelRegistry) -> None:
    (call,) = (await ask(registry, "tool")).parts
    assert isinstance(call, ToolCallPart)
    assert (call.tool_name, call.args_as_dict()) == ("calculator", {"expression": "1+1"})


async def test_sends_what_it_is_given(registry: ModelRegistry, upstream: Upstream) -> None:
    history: list[ModelMessage] = [
        ModelRequest([SystemPromptPart("Be brief."), UserPromptPart("Hi <|im_start|>")]),
        ModelResponse([TextPart("Hello")]),
        ModelRequest([UserPromptPart("Bye")]),
    ]
    parameters = ModelRequestParameters(
        function_tools=[ToolDefinition(name="calculator", description="Sums.")],
        instruction_parts=[InstructionPart("You are kind.")],
    )
    await registry.resolve("local:answer").request(history, {"max_tokens": 5, "temperature": 0.5}, parameters)
    (sent,) = upstream.requests
    assert upstream.keys == [KEY]
    assert sent["max_tokens"] == 5
    assert sent["temperature"] == 0.5
    assert [message["role"] for message in sent["messages"]] == ["system", "system", "user", "assistant", "user"]
    assert sent["tools"][0]["function"]["name"] == "calculator"
    assert "<|im_start|>" not in str(sent)


FAILURES = [
    ("500", ModelFailed, "model-failed"),
    ("503", ModelFailed, "model-failed"),
    ("400", ModelFailed, "model-rejected"),
    ("401", ModelFailed, "model-credentials"),
    ("403", ModelFailed, "model-credentials"),
    ("404", ModelFailed, "model-not-found"),
    ("429", ModelFailed, "model-rate-limited"),
    ("quota", ModelFailed, "model-quota"),
    ("context", ModelFailed, "model-context-exceeded"),
    ("504", ModelTimeout, "model-timeout"),
    ("redirect", ModelFailed, "model-failed"),
    ("hang", ModelTimeout, "model-timeout"),
    ("close", ModelFailed, "model-unreachable"),
    ("not-http", ModelFailed, "model-unreachable"),
]
GARBAGE = ["not-json", "broken-json", "other-json", "null-json", "binary"]


def assert_says_nothing(error: KgentsError) -> None:
    shown = f"{error.detail} {error.headers} {error.extra}"
    assert not [text for text in (KEY, SECRET_IN_ANSWERS, "private text", "127.0.0.1") if text in shown]


@pytest.mark.parametrize(
    ("scene", "kind", "code"), [*FAILURES, *((scene, ModelFailed, "model-failed") for scene in GARBAGE)]
)
async def test_a_failure_is_one_clear_error(
    registry: ModelRegistry, scene: str, kind: type[KgentsError], code: str
) -> None:
    started = time.monotonic()
    with pytest.raises(kind) as raised:
        await ask(registry, scene)
    assert raised.value.code == code
    assert_says_nothing(raised.value)
    assert time.monotonic() - started < TIMEOUT + 2.5


@pytest.mark.parametrize(
    ("scene", "kind", "code"),
    [
        *FAILURES,
        *((scene, ModelFailed, "model-failed") for scene in GARBAGE),
        ("hang-midway", ModelTimeout, "model-timeout"),
        ("close-midway", ModelFailed, "model-unreachable"),
        ("end-midway", ModelFailed, "model-failed"),
        ("error-midway", ModelFailed, "model-failed"),
    ],
)
async def test_a_failing_stream_is_one_clear_error(
    registry: ModelRegistry, scene: str, kind: type[KgentsError], code: str
) -> None:
    started = time.monotonic()
    with pytest.raises(kind) as raised:
        await stream(registry, scene)
    assert raised.value.code == code
    assert_says_nothing(raised.value)
    assert time.monotonic() - started < TIMEOUT + 2.5


async def test_a_rate_limit_says_when_to_come_back(registry: ModelRegistry) -> None:
    with pytest.raises(ModelFailed) as raised:
        await ask(registry, "429")
    assert raised.value.headers == {"Retry-After": "7"}
    assert raised.value.extra == {"upstream_status": 429}


async def test_a_provider_that_is_not_there_is_unreachable() -> None:
    registry = registry_for(f"http://127.0.0.1:{free_port()}/v1")
    with pytest.raises(ModelFailed) as raised:
        await ask(registry, "answer")
    assert raised.value.code == "model-unreachable"
    await registry.aclose()


async def test_a_failure_is_not_tried_again_unseen(registry: ModelRegistry, upstream: Upstream) -> None:
    with pytest.raises(ModelFailed):
        await ask(registry, "500")
    assert len(upstream.requests) == 1


async def test_a_cancelled_call_leaves_the_provider_usable(registry: ModelRegistry) -> None:
    task = asyncio.create_task(ask(registry, "hang"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await ask(registry, "answer")).parts == [TextPart("Hello from upstream")]


async def test_leaving_a_stream_early_is_no_failure(registry: ModelRegistry) -> None:
    async with registry.resolve("local:answer").request_stream(HISTORY, None, ModelRequestParameters()) as answer:
        async for _ in answer:
            break


async def test_a_providers_models_share_its_connections(registry: ModelRegistry, upstream: Upstream) -> None:
    for model in ("answer", "tool", "answer"):
        await ask(registry, model)
    await stream(registry, "answer")
    await ask(registry, "tool")
    assert upstream.connections == 1


async def test_an_operators_own_server_goes_on_with_the_trace(registry: ModelRegistry, upstream: Upstream) -> None:
    with traces.server_span("POST", TRACEPARENT):
        await ask(registry, "answer")
    assert upstream.traceparents == [TRACEPARENT]


async def test_a_trace_ends_before_openai() -> None:
    class Deaf(Session):
        async def post(self, url: yarl.URL, body: bytes, headers: Mapping[str, str]) -> Any:
            sent.append((url.host, headers))
            raise TimeoutError

    sent: list[tuple[str | None, Mapping[str, str]]] = []
    session = Deaf(1.0, connect=1.0, pool=1.0, connections=1, idle=1.0)
    with traces.server_span("POST", TRACEPARENT), pytest.raises(ModelAPIError):
        await openai_chat.build("gpt", KEY, None, session).request(HISTORY, None, ModelRequestParameters())
    ((host, headers),) = sent
    assert host == "api.openai.com"
    assert "traceparent" not in headers


@pytest.mark.parametrize(
    ("kind", "model", "text", "tokens"),
    [("anthropic", "claude", "Hello from Claude", (5, 4)), ("google", "gemini", "Hello from Gemini", (6, 3))],
)
async def test_other_kinds_of_provider_answer(
    upstream: Upstream, kind: str, model: str, text: str, tokens: tuple[int, int]
) -> None:
    url = upstream.url.removesuffix("/v1")
    provider = ProviderSettings.model_validate({"kind": kind, "base_url": url, "api_key": KEY})
    async with aclosing(ModelRegistry(Settings(providers={"other": provider}), timeout=TIMEOUT)) as registry:
        with traces.server_span("POST", TRACEPARENT):
            response = await registry.resolve(f"other:{model}").request(HISTORY, None, ModelRequestParameters())
    assert upstream.traceparents == [""]
    assert response.parts == [TextPart(text)]
    assert (response.usage.input_tokens, response.usage.output_tokens) == tokens
    assert upstream.keys == [KEY]


@pytest.mark.parametrize("kind", ["anthropic", "google"])
@pytest.mark.parametrize(
    ("scene", "status"), [("500", 502), ("401", 502), ("429", 502), ("hang", 504), ("close", 502), ("not-json", 502)]
)
async def test_other_kinds_of_provider_fail_clearly(upstream: Upstream, kind: str, scene: str, status: int) -> None:
    url = upstream.url.removesuffix("/v1")
    provider = ProviderSettings.model_validate({"kind": kind, "base_url": url, "api_key": KEY})
    async with aclosing(ModelRegistry(Settings(providers={"local": provider}), timeout=TIMEOUT)) as registry:
        await registry.warm()
        started = time.monotonic()
        with pytest.raises(KgentsError) as raised:
            await ask(registry, scene)
        took = time.monotonic() - started
    assert raised.value.status == status
    assert_says_nothing(raised.value)
    assert took < TIMEOUT + 2.5
