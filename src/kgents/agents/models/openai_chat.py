"""Models of OpenAI, and of any server that speaks its chat completions (Ollama, vLLM, gateways)."""

from __future__ import annotations

from typing import Any

import yarl
from openai.types.chat import ChatCompletion
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIStreamedResponse
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.usage import RequestUsage

from kgents.agents.conversation import string
from kgents.agents.models.chat_client import OPENAI, ChatClient, Session, ValidCompletion
from kgents.agents.models.failures import UnreadableAnswer


class ChatStream(OpenAIStreamedResponse):
    """pydantic-ai's stream, in which a report of the usage stands for the whole call so far: OpenAI sends one, at the
    end, and servers that send one with every chunk count from the beginning each time.
    """

    def _add_usage(self, usage: RequestUsage, *, reported: bool, cumulative: bool = False) -> None:  # noqa: ARG002
        if reported:
            super()._add_usage(usage, reported=True, cumulative=True)


class ChatModel(OpenAIChatModel):
    """pydantic-ai's model, which does not validate again what the client has validated, and takes the two counts that
    are metered as they are: pydantic-ai looks for them by a table of prices.
    """

    def _process_response(self, response: ChatCompletion | str, **options: Any) -> ModelResponse:
        """Raises UnreadableAnswer for a completion that breaks OpenAI's schema too far."""
        try:
            return super()._process_response(response, **options)
        except Exception as error:
            # Anything else, such as an error that came with status 200, is no answer that is charged for.
            if getattr(response, "usage", None) or isinstance(getattr(response, "choices", None), list):
                raise _unreadable(response) from error
            raise

    def _validate_completion(self, response: ChatCompletion) -> Any:
        return response if isinstance(response, ValidCompletion) else super()._validate_completion(response)

    @property
    def _streamed_response_cls(self) -> type[OpenAIStreamedResponse]:
        return ChatStream

    def _map_usage(self, response: ChatCompletion) -> RequestUsage:
        usage = response.usage
        if not isinstance(response, ValidCompletion) or usage is None:
            return super()._map_usage(response)
        return RequestUsage(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)


def _unreadable(response: Any) -> UnreadableAnswer:
    """What can be told of a completion whose values may be of any type, or missing."""
    usage = getattr(response, "usage", None)
    counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    tokens_in, tokens_out = (count if type(count) is int else 0 for count in counts)
    try:
        text = string(response.choices[0].message.content or "")
    except (AttributeError, LookupError, TypeError):
        text = ""
    in_full = all(type(count) is int for count in counts)
    return UnreadableAnswer(RequestUsage(input_tokens=tokens_in, output_tokens=tokens_out), in_full=in_full, text=text)


def build(name: str, key: str, base_url: str | None, session: Session) -> Model[Any]:
    """The model `name` of the server at `base_url` (OpenAI's own without one)."""
    # A stream that ends without saying why it ends was cut off on its way.
    profile = OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True)
    if base_url is not None and yarl.URL(base_url).host != OPENAI:
        # Servers of open models know the older name of the limit, and would read `<|im_start|>` in a user's text as
        # their own control token.
        profile["openai_chat_supports_max_completion_tokens"] = False
        profile["may_tokenize_special_tokens_in_content"] = True
    client = ChatClient(session, api_key=key or "none", base_url=base_url or f"https://{OPENAI}/v1")
    return ChatModel(name, provider=OpenAIProvider(openai_client=client), profile=profile)
