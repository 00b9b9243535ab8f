"""Names to models: `kgents:echo`, and `<provider>:<model>` for each provider in the settings."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ImageUrl, ModelMessage, ModelResponse, UserPromptPart
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from kgents.agents.models.echo import MODEL_ID, EchoModel, worst_case
from kgents.agents.models.failures import translate
from kgents.agents.models.providers import Client, build_model, import_kind
from kgents.agents.models.tokens import bound_request
from kgents.config import ProviderSettings, Settings
from kgents.errors import Unprocessable

__all__ = ["ModelRegistry", "translate"]

MAX_MODELS = 1000
MAX_NAME = 200
DEFAULT_MAX_OUTPUT = 16_384


class ModelRegistry:
    """The models of one process, made when they are first asked for. A provider's models share one HTTP client, which
    belongs to the event loop that first uses it.
    """

    def __init__(self, settings: Settings, *, timeout: float = 120.0) -> None:
        """`timeout` is how many seconds a provider may stay silent, before and between the parts of an answer."""
        self._providers = dict(settings.providers)
        self._timeout = timeout
        self._clients: dict[str, Client] = {}
        self._echo = EchoModel()
        self._models: OrderedDict[str, Model[Any]] = OrderedDict()

    def resolve(self, name: str) -> Model[Any]:
        """The model of a name such as `kgents:echo` or `openai:gpt-5`.

        Raises Unprocessable (`model-not-configured`) when its provider, or the model itself, is not configured. The
        first model of a kind imports its SDK, which takes up to seconds; see `warm`.
        """
        if name == MODEL_ID:
            return self._echo
        model = self._models.get(name)
        if model is None:
            provider, settings, model_name = self._configured(name)
            model = ProviderModel(build_model(provider, settings, model_name, self._clients, self._timeout))
            self._models[name] = model
            if len(self._models) > MAX_MODELS:
                self._models.popitem(last=False)
        return model

    def check(self, name: str) -> None:
        """Raise Unprocessable (`model-not-configured`) unless `name` can be resolved. Imports nothing."""
        if name != MODEL_ID:
            self._configured(name)

    def names(self) -> list[str]:
        """The models that the settings name, and `kgents:echo`; a provider without a list of models shows as `p:*`."""
        listed = [f"{name}:{model}" for name, one in self._providers.items() for model in one.models or ["*"]]
        return [MODEL_ID, *sorted(listed)]

    def estimate(
        self,
        model_name: str,
        messages: list[ModelMessage],
        settings: ModelSettings | None,
        parameters: ModelRequestParameters,
    ) -> tuple[int, int]:
        """Upper bounds of a request's input and output tokens; for `kgents:echo` the input is exact.

        Raises Unprocessable as `resolve` does, and (`model-unsupported`) when the model can't do what is asked.
        """
        if model_name == MODEL_ID:
            return worst_case(messages, settings, parameters)
        if self._configured(model_name)[1].kind == "google" and _has_image_urls(messages):
            raise Unprocessable(
                f"The model {model_name!r} takes images as data URLs only; others this server would have to fetch.",
                code="model-unsupported",
                param="image_url",
            )
        try:
            _, prepared = self.resolve(model_name).prepare_request(settings, parameters)
        except Exception as error:
            raise translate(error) from error
        return bound_request(messages, prepared), (settings or {}).get("max_tokens") or DEFAULT_MAX_OUTPUT

    async def warm(self) -> None:
        """Import the SDKs of the configured providers off the event loop, so that the first run need not wait."""
        for kind in sorted({one.kind for one in self._providers.values()}):
            await asyncio.to_thread(import_kind, kind)

    async def aclose(self) -> None:
        """Close the providers' connections."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    def _configured(self, name: str) -> tuple[str, ProviderSettings, str]:
        provider, colon, model = name.partition(":")
        settings = self._providers.get(provider)
        if not colon or not model or len(name) > MAX_NAME or settings is None:
            raise self._not_configured(name)
        if settings.models and model not in settings.models:
            raise Unprocessable(
                f"The provider {provider!r} is not set up for that model. Use one of: "
                f"{', '.join(f'{provider}:{one}' for one in settings.models)}; or add the model to "
                f"KGENTS_PROVIDERS__{provider}__MODELS.",
                code="model-not-configured",
            )
        return provider, settings, model

    def _not_configured(self, name: str) -> Unprocessable:
        configured = ", ".join(f"{provider}:<model>" for provider in sorted(self._providers))
        provider = name.partition(":")[0] if name.partition(":")[0].isidentifier() else "openai"
        return Unprocessable(
            f"The model {name[:MAX_NAME]!r} is not configured. Configured: {MODEL_ID}"
            f"{f', {configured}' if configured else ''}. To add a provider set KGENTS_PROVIDERS__{provider[:32]}__KIND "
            f"(openai, anthropic or google) and KGENTS_PROVIDERS__{provider[:32]}__API_KEY, or its __BASE_URL for any "
            "OpenAI-compatible server, and restart.",
            code="model-not-configured",
        )


def _has_image_urls(messages: list[ModelMessage]) -> bool:
    """Whether an image is to be fetched from where the caller says. For Gemini pydantic-ai does that in this process,
    past agents/tools/egress.py; the others get the URL as it is.
    """
    return any(
        isinstance(part, UserPromptPart)
        and not isinstance(part.content, str)
        and any(isinstance(item, ImageUrl) for item in part.content)
        for message in messages
        for part in message.parts
    )


class ProviderModel(WrapperModel):
    """A provider's model, whose requests go through pydantic-ai's preparation of messages (which `Agent` would do),
    and whose streams fail when they end before the model said that it had finished.
    """

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """The whole answer. Raises what `translate` takes."""
        prepared = self.wrapped.prepare_messages(list(messages), model_request_parameters)
        return await self.wrapped.request(prepared, model_settings, model_request_parameters)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: Any = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """The answer in parts. Raises what `translate` takes, also on leaving a stream that broke off silently."""
        prepared = self.wrapped.prepare_messages(list(messages), model_request_parameters)
        async with self.wrapped.request_stream(
            prepared, model_settings, model_request_parameters, run_context
        ) as stream:
            yield stream
            response = stream.get()
            if stream.state == "incomplete" or (response.state == "complete" and response.finish_reason is None):
                raise ModelAPIError(self.model_name, "The stream ended before the answer did.")
