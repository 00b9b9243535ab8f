"""Making a provider's model. The SDKs are imported here, when they are needed: they cost 0.5 to 3 s each."""

from __future__ import annotations

import importlib
from typing import Any

import httpx2
from pydantic_ai.models import Model

from kgents.config import ProviderSettings
from kgents.errors import Unprocessable

_MODULES = {
    "openai": ("pydantic_ai.models.openai", "pydantic_ai.providers.openai"),
    "anthropic": ("pydantic_ai.models.anthropic", "pydantic_ai.providers.anthropic"),
    "google": ("pydantic_ai.models.google", "pydantic_ai.providers.google"),
}


def import_kind(kind: str) -> bool:
    """Import the SDK of a kind of provider; False when it is not installed."""
    try:
        for module in _MODULES[kind]:
            importlib.import_module(module)
    except ImportError:
        return False
    return True


def build_model(provider: str, settings: ProviderSettings, name: str, client: httpx2.AsyncClient) -> Model[Any]:
    """The pydantic-ai model `name` of a configured provider, over `client`.

    Raises Unprocessable (`model-not-configured`) when the SDK is not installed or there is no API key.
    """
    if not import_kind(settings.kind):
        raise Unprocessable(
            f"The provider {provider!r} is of kind {settings.kind}, whose SDK is not installed. Install "
            f"kgents[{settings.kind}] and restart.",
            code="model-not-configured",
        )
    base_url = str(settings.base_url) if settings.base_url else None
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    if not key and (base_url is None or settings.kind != "openai"):
        raise Unprocessable(
            f"The provider {provider!r} has no API key. Set KGENTS_PROVIDERS__{provider}__API_KEY and restart.",
            code="model-not-configured",
        )
    return {"openai": _openai, "anthropic": _anthropic, "google": _google}[settings.kind](name, key, base_url, client)


def _openai(name: str, key: str, base_url: str | None, client: httpx2.AsyncClient) -> Model[Any]:
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.openai import OpenAIProvider

    # A stream that ends without saying why it ends was cut off on its way.
    profile = OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True)
    if base_url is not None and httpx2.URL(base_url).host != "api.openai.com":
        # Servers of open models know the older name of the limit, and would read `<|im_start|>` in a user's text as
        # their own control token.
        profile["openai_chat_supports_max_completion_tokens"] = False
        profile["may_tokenize_special_tokens_in_content"] = True
    sdk = AsyncOpenAI(
        api_key=key or "none",
        base_url=base_url or "https://api.openai.com/v1",
        organization="",
        project="",
        http_client=client,
        timeout=client.timeout,
        max_retries=0,
    )
    return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=sdk), profile=profile)


def _anthropic(name: str, key: str, base_url: str | None, client: httpx2.AsyncClient) -> Model[Any]:
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    sdk = AsyncAnthropic(
        api_key=key,
        base_url=base_url or "https://api.anthropic.com",
        http_client=client,
        timeout=client.timeout,
        max_retries=0,
    )
    return AnthropicModel(name, provider=AnthropicProvider(anthropic_client=sdk))


def _google(name: str, key: str, base_url: str | None, client: httpx2.AsyncClient) -> Model[Any]:
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    return GoogleModel(name, provider=GoogleProvider(api_key=key, base_url=base_url, http_client=client))
