"""`kgents:echo`: a deterministic offline model, so that everything above a model can be run without a provider.

It answers with the last user text, word by word when it is streamed. Some texts make it do more:

- `/call NAME {"json": "arguments"}` calls a tool; several such lines make several calls, of which the first 256 count;
  the tools' results are the next answer;
- `/words N` answers N words; `/sleep SECONDS TEXT` waits between the words of TEXT (which may be a command too);
- `/fail` or `/fail STATUS` fails as a provider that answers with that HTTP status (500).

Where an output schema is asked for it answers with the user's text when that matches the schema, or else with the
smallest value that does.
"""

from __future__ import annotations

from asyncio import sleep
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from time import perf_counter
from types import TracebackType
from typing import Any

from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import (
    FinalResultEvent,
    ModelMessage,
    ModelResponse,
    ModelResponsePart,
    ModelResponseState,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.profiles import DEFAULT_PROFILE, ModelProfile, merge_profile
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from kgents.agents.models.echo_answer import Answer, answer_to, split_words
from kgents.agents.models.tokens import count_request, count_tokens, part_tokens

MODEL_ID = "kgents:echo"

_WORDS_A_TURN = 16  # after so many words the other tasks of the process get their turn
_PROFILE = merge_profile(
    DEFAULT_PROFILE,
    ModelProfile(
        supports_tools=True,
        supports_json_schema_output=True,
        supports_json_object_output=True,
        default_structured_output_mode="native",
    ),
)


class EchoStream(StreamedResponse):
    """An answer in progress. It makes its events itself: the base class's part manager and its chain of generators
    cost more than a word does.
    """

    def __init__(self, answer: Answer, input_tokens: int, parameters: ModelRequestParameters) -> None:
        self.model_request_parameters = parameters
        self._answer = answer
        self._input_tokens = input_tokens
        self._done: list[ModelResponsePart] = []
        self._words: list[str] = []
        self._timestamp = datetime.now(UTC)

    def __aiter__(self) -> AsyncIterator[ModelResponseStreamEvent]:
        """The events, each once, however often the iteration is taken up again."""
        if self._event_iterator is None:
            self._event_iterator = self._get_event_iterator()
        return self._event_iterator

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        parts = self._answer.parts
        self._first_chunk_monotonic = perf_counter()
        for index, part in enumerate(parts):
            before = parts[index - 1].part_kind if index else None
            if isinstance(part, TextPart):
                words = split_words(part.content)
                self._words = said = words[:1]
                yield PartStartEvent(index=index, part=TextPart(said[0] if said else ""), previous_part_kind=before)
                if self._is_result(part):
                    yield self._result(None, None)
                pause = self._answer.pause
                for count, word in enumerate(words[1:], 1):
                    if pause or count % _WORDS_A_TURN == 0:
                        await sleep(pause)
                    if self._cancelled:
                        return
                    said.append(word)
                    yield PartDeltaEvent(index=index, delta=TextPartDelta(word))
                self._words = []
            else:
                yield PartStartEvent(index=index, part=part, previous_part_kind=before)
                if isinstance(part, ToolCallPart) and self._is_result(part):
                    yield self._result(part.tool_name, part.tool_call_id)
            self._done.append(part)
            after = parts[index + 1].part_kind if index + 1 < len(parts) else None
            yield PartEndEvent(index=index, part=part, next_part_kind=after)
        self._finished = not self._cancelled

    def _is_result(self, part: TextPart | ToolCallPart) -> bool:
        parameters = self.model_request_parameters
        if self.final_result_event is not None:
            return False
        if isinstance(part, TextPart):
            return parameters.allow_text_output
        return any(tool.name == part.tool_name for tool in parameters.output_tools)

    def _result(self, tool_name: str | None, call_id: str | None) -> FinalResultEvent:
        self.final_result_event = FinalResultEvent(tool_name=tool_name, tool_call_id=call_id)
        return self.final_result_event

    def get(self) -> ModelResponse:
        """What has been said so far."""
        state: ModelResponseState = "complete" if self._finished else "interrupted" if self._cancelled else "incomplete"
        return ModelResponse(
            [*self._done, TextPart("".join(self._words))] if self._words else list(self._done),
            usage=self.usage,
            model_name="echo",
            timestamp=self._timestamp,
            provider_name="kgents",
            finish_reason=self._answer.finish_reason if self._finished else None,
            state=state,
        )

    @property
    def usage(self) -> RequestUsage:
        """The tokens of the input, and of what has been said so far."""
        if self._finished:
            return RequestUsage(input_tokens=self._input_tokens, output_tokens=self._answer.output_tokens)
        said = count_tokens("".join(self._words)) + sum(part_tokens(part) for part in self._done)
        return RequestUsage(input_tokens=self._input_tokens, output_tokens=said)

    async def close_stream(self) -> None:
        """There is no connection to close."""

    @property
    def model_name(self) -> str:
        """`echo`"""
        return "echo"

    @property
    def provider_name(self) -> str:
        """`kgents`"""
        return "kgents"

    @property
    def provider_url(self) -> None:
        """There is no provider to call."""
        return

    @property
    def timestamp(self) -> datetime:
        """When the answer began."""
        return self._timestamp


class _Opening:
    """The context manager of a streamed answer."""

    def __init__(self, answer: Answer, input_tokens: int, parameters: ModelRequestParameters) -> None:
        self._answer = answer
        self._stream = EchoStream(answer, input_tokens, parameters)

    async def __aenter__(self) -> EchoStream:
        if self._answer.fail_with:
            await sleep(self._answer.pause)
            raise _told_to_fail(self._answer)
        return self._stream

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


class _Echo:
    """The model's requests, in a class of their own: Model wraps the request methods of its direct subclasses to undo
    and limit things that this model doesn't do, which would cost more than the answer.
    """

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """The whole answer. Raises ModelHTTPError when it is told to fail."""
        answer = answer_to(messages, model_settings, model_request_parameters)
        if answer.pause:
            for _ in answer.words():
                await sleep(answer.pause)
        if answer.fail_with:
            raise _told_to_fail(answer)
        return ModelResponse(
            answer.parts,
            usage=RequestUsage(
                input_tokens=count_request(messages, model_request_parameters), output_tokens=answer.output_tokens
            ),
            model_name="echo",
            provider_name="kgents",
            finish_reason=answer.finish_reason,
        )

    def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: Any = None,  # noqa: ARG002  # part of the interface
    ) -> _Opening:
        """A context manager that gives the answer word by word; entering it raises ModelHTTPError when told to fail."""
        answer = answer_to(messages, model_settings, model_request_parameters)
        return _Opening(answer, count_request(messages, model_request_parameters), model_request_parameters)

    async def count_tokens(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,  # noqa: ARG002
        model_request_parameters: ModelRequestParameters,
    ) -> RequestUsage:
        """The input tokens of a request."""
        return RequestUsage(input_tokens=count_request(messages, model_request_parameters))

    def prepare_messages(
        self,
        messages: list[ModelMessage],
        model_request_parameters: ModelRequestParameters | None = None,  # noqa: ARG002
    ) -> list[ModelMessage]:
        """The messages as they are."""
        return messages

    @property
    def profile(self) -> ModelProfile:
        """What the model can do: tools and JSON schema output."""
        return _PROFILE

    @property
    def model_name(self) -> str:
        """`echo`"""
        return "echo"

    @property
    def system(self) -> str:
        """`kgents`"""
        return "kgents"


class EchoModel(_Echo, Model[None]):  # type: ignore[misc]  # profile is a plain property here
    """The model `kgents:echo`. Making one costs nothing: it has no client and no prices to load."""

    def __init__(self) -> None:
        # Model.__init__ loads a table of prices, of which none applies.
        self._settings = None
        self._profile = None


def worst_case(
    messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
) -> tuple[int, int]:
    """The input tokens of a request to `kgents:echo`, exactly, and the most output tokens that it can answer with."""
    answer = answer_to(messages, settings, parameters)
    most = answer.output_tokens
    if settings and settings.get("tool_choice") not in (None, "auto", "none"):
        # The tools may not be known yet, and their smallest arguments may be longer than the text.
        most = max(most, settings.get("max_tokens") or most)
    return count_request(messages, parameters), most


def _told_to_fail(answer: Answer) -> ModelHTTPError:
    return ModelHTTPError(answer.fail_with, "echo", {"error": {"message": "told to fail by /fail"}})
