"""Making a provider's model. The SDKs are imported here, when they are needed: they cost 0.5 to 3 s each."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

import httpx2
from pydantic_ai.models import Model

from kgents.config import ProviderSettings
from kgents.errors import Unprocessable

_MODULES = {
    "openai": ("kgents.agents.models.openai_chat",),
    "anthropic": ("pydantic_ai.models.anthropic", "pydantic_ai.providers.anthropic"),
    "google": ("pydantic_ai.models.google", "pydantic_ai.providers.google"),
}

_CONNECT_SECONDS = 5.0
_POOL_SECONDS = 10.0
_IDLE_SECONDS = 30.0
_CONNECTIONS = 512


def import_kind(kind: str) -> bool:
    """Import the SDK of a kind of provider; False when it is not installed."""
    try:
        for module in _MODULES[kind]:
            importlib.import_module(module)
    except ImportError:
        return False
    return True


class Client(Protocol):
    """What a provider's models share: its connections, which belong to the event loop that first uses them."""

    async def aclose(self) -> None:
        """Close the connections."""
        ...


def open_client(kind: str, timeout: float) -> Client:
    """The client of a provider of this kind, whose SDK is installed. `timeout` is how many seconds a provider may stay
    silent, before and between the parts of an answer.

    A connection that can't be made is tried once more; an answer that fails is the caller's to ask for again, since a
    retry that nobody sees would double the wait and may double the provider's bill.
    """
    if kind == "openai":
        from kgents.agents.models.chat_client import Session

        return Session(
            timeout, connect=_CONNECT_SECONDS, pool=_POOL_SECONDS, connections=_CONNECTIONS, idle=_IDLE_SECONDS
        )
    limits = httpx2.Limits(
        max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS
    )
    return httpx2.AsyncClient(
        transport=httpx2.AsyncHTTPTransport(retries=1, limits=limits),
        timeout=httpx2.Timeout(timeout, connect=_CONNECT_SECONDS, pool=_POOL_SECONDS),
    )


def build_model(
    provider: str, settings: ProviderSettings, name: str, clients: dict[str, Client], timeout: float
) -> Model[Any]:
    """The pydantic-ai model `name` of a configured provider, over its client of `clients`, which is opened (see
    `open_client`) if it is not there yet.

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
    client = clients.get(provider)
    if client is None:
        client = clients[provider] = open_client(settings.kind, timeout)
    build: dict[str, Callable[[str, str, str | None, Any], Model[Any]]] = {
        "openai": _openai,
        "anthropic": _anthropic,
        "google": _google,
    }
    return build[settings.kind](name, key, base_url, client)


def _openai(name: str, key: str, base_url: str | None, session: Any) -> Model[Any]:
    from kgents.agents.models.openai_chat import build

    return build(name, key, base_url, session)


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
