"""Names to models, without calling any."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import httpx2
import pytest
from pydantic_ai.exceptions import ModelHTTPError, UserError
from pydantic_ai.messages import ImageUrl, ModelMessage, ModelRequest, UserPromptPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition

from kgents.agents.models import providers
from kgents.agents.models.echo import EchoModel
from kgents.agents.models.registry import ModelRegistry, translate
from kgents.config import ProviderSettings, Settings
from kgents.errors import ModelFailed, ModelTimeout, NotFound, Unprocessable

SECRET = "sk-very-secret"
HISTORY: list[ModelMessage] = [ModelRequest([UserPromptPart("héllo")])]


def registry(**named: dict[str, object]) -> ModelRegistry:
    configured = {name: ProviderSettings.model_validate(values) for name, values in named.items()}
    return ModelRegistry(Settings(providers=configured))


def refusal(of: ModelRegistry, name: str) -> Unprocessable:
    with pytest.raises(Unprocessable) as raised:
        of.resolve(name)
    assert raised.value.code == "model-not-configured"
    return raised.value


def test_echo_is_always_there() -> None:
    assert isinstance(registry().resolve("kgents:echo"), EchoModel)


@pytest.mark.parametrize(
    "name", ["", ":", "echo", "openai:", "openai", "nowhere:gpt", "kgents:other", "openai:" + "x" * 300]
)
def test_what_is_not_configured_is_refused(name: str) -> None:
    refusal(registry(openai={"api_key": SECRET}), name)


def test_a_refusal_says_what_is_configured_and_what_to_set() -> None:
    detail = refusal(registry(ollama={"base_url": "http://127.0.0.1:11434/v1"}), "openai:gpt-5").detail
    assert "ollama:<model>" in detail
    assert "KGENTS_PROVIDERS__openai__API_KEY" in detail


def test_a_provider_with_a_list_of_models_has_no_others() -> None:
    one = registry(ollama={"base_url": "http://127.0.0.1:11434/v1", "models": ["llama3", "qwen3"]})
    assert "ollama:llama3, ollama:qwen3" in refusal(one, "ollama:gpt-5").detail


@pytest.mark.parametrize("kind", ["google", "openai", "anthropic"])
def test_images_by_url_are_refused_where_this_process_would_fetch_them(kind: str) -> None:
    asked: list[ModelMessage] = [ModelRequest([UserPromptPart(["what is it?", ImageUrl("https://example.com/a.png")])])]
    of = registry(one={"kind": kind, "api_key": SECRET})
    if kind == "google":
        with pytest.raises(Unprocessable, match="data URLs only"):
            of.estimate("one:model", asked, None, ModelRequestParameters())
    else:
        assert of.estimate("one:model", asked, None, ModelRequestParameters())


def test_a_provider_without_a_key_is_refused() -> None:
    assert "KGENTS_PROVIDERS__openai__API_KEY" in refusal(registry(openai={}), "openai:gpt-5").detail


def test_an_sdk_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "import_kind", lambda kind: False)
    one = registry(anthropic={"kind": "anthropic", "api_key": SECRET})
    assert "kgents[anthropic]" in refusal(one, "anthropic:claude").detail


def test_an_import_that_fails_counts_as_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(providers._MODULES, "google", ("kgents_has_no_such_module",))
    assert providers.import_kind("google") is False


def test_a_name_is_checked_without_making_the_model() -> None:
    one = registry(openai={"api_key": SECRET})
    one.check("kgents:echo")
    one.check("openai:gpt-5")
    with pytest.raises(Unprocessable):
        one.check("other:gpt-5")


def test_names_what_can_be_used() -> None:
    one = registry(openai={"api_key": SECRET}, ollama={"models": ["b", "a"]})
    assert one.names() == ["kgents:echo", "ollama:a", "ollama:b", "openai:*"]


def test_resolves_every_kind_once() -> None:
    one = registry(
        openai={"api_key": SECRET},
        anthropic={"kind": "anthropic", "api_key": SECRET},
        google={"kind": "google", "api_key": SECRET},
        local={"base_url": "http://127.0.0.1:1/v1"},
    )
    for name in ("openai:gpt-5", "anthropic:claude-sonnet-4-5", "google:gemini-2.5-pro", "local:any/thing:7b"):
        model = one.resolve(name)
        assert model is one.resolve(name)
        assert model.model_name == name.partition(":")[2]
        assert SECRET not in repr(model)
    asyncio.run(one.aclose())


def test_remembers_a_bounded_number_of_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kgents.agents.models.registry.MAX_MODELS", 2)
    one = registry(local={"base_url": "http://127.0.0.1:1/v1"})
    first = one.resolve("local:a")
    one.resolve("local:b")
    one.resolve("local:c")
    assert one.resolve("local:a") is not first


def test_the_estimate_for_echo_is_exact() -> None:
    assert registry().estimate("kgents:echo", HISTORY, {"max_tokens": 50}, ModelRequestParameters()) == (2, 2)


def test_the_estimate_for_a_provider_is_a_bound() -> None:
    one = registry(local={"base_url": "http://127.0.0.1:1/v1"})
    tokens_in, tokens_out = one.estimate("local:a", HISTORY, {"max_tokens": 50}, ModelRequestParameters())
    assert tokens_in >= len("héllo".encode())
    assert tokens_out == 50


def test_the_estimate_counts_what_the_schema_becomes() -> None:
    one = registry(local={"base_url": "http://127.0.0.1:1/v1"})
    schema = {"type": "object", "properties": {"a": {"type": "string", "description": "x" * 1000}}}
    asked = ModelRequestParameters(output_mode="prompted", output_object=OutputObjectDefinition(json_schema=schema))
    plain, _ = one.estimate("local:a", HISTORY, None, ModelRequestParameters())
    assert one.estimate("local:a", HISTORY, None, asked)[0] >= plain + 2 * 1000


def test_importing_the_registry_imports_no_sdk() -> None:
    code = (
        "import sys, kgents.agents.models.registry;"
        "print([name for name in ('openai', 'anthropic', 'google.genai', 'mcp', 'fastmcp') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (ModelHTTPError(500, "m", {"message": SECRET}), ModelFailed, "model-failed"),
        (ModelHTTPError(401, "m", {"message": SECRET}), ModelFailed, "model-credentials"),
        (ModelHTTPError(429, "m", {"message": SECRET}), ModelFailed, "model-rate-limited"),
        (ModelHTTPError(408, "m", {"message": SECRET}), ModelTimeout, "model-timeout"),
        (TimeoutError(SECRET), ModelTimeout, "model-timeout"),
        (httpx2.ReadTimeout(SECRET), ModelTimeout, "model-timeout"),
        (httpx2.ConnectError(SECRET), ModelFailed, "model-unreachable"),
        (ConnectionResetError(SECRET), ModelFailed, "model-unreachable"),
        (UserError(SECRET), Unprocessable, "model-unsupported"),
        (ValueError(SECRET), ModelFailed, "model-failed"),
        (KeyError(SECRET), ModelFailed, "model-failed"),
    ],
)
def test_any_failure_becomes_an_error_without_its_text(error: Exception, kind: type, code: str) -> None:
    shown = translate(error)
    assert isinstance(shown, kind)
    assert shown.code == code
    assert SECRET not in f"{shown} {shown.extra} {shown.headers}"


def test_our_own_errors_stay_as_they_are() -> None:
    error = NotFound("gone")
    assert translate(error) is error
