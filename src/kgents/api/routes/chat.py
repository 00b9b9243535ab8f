"""`POST /v1/chat/completions`, as OpenAI's SDKs speak it; `model` names the tenant's agent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from kgents.agents.events import Channel, RunEvent
from kgents.agents.executor import Execution
from kgents.agents.model import Output, Overrides, Run
from kgents.agents.runner import end_event_of
from kgents.api import sse
from kgents.api.body import Body
from kgents.api.call import Call, RunsWrite
from kgents.api.follow import live
from kgents.api.json_route import JsonRoute
from kgents.api.launch import Ask, launch
from kgents.api.openai_input import (
    ChatMessage,
    ChatTool,
    FewPatterns,
    ResponseFormat,
    ToolChoice,
    choice_name,
    refuse_unsupported,
)
from kgents.api.outcome import failure_from_event, failure_of
from kgents.api.problems import OPENAI_PROBLEMS, openai_error
from kgents.clock import SECOND
from kgents.errors import KgentsError, Unauthenticated

router = APIRouter(tags=["OpenAI-compatible"], route_class=JsonRoute)


class StreamOptions(Body):
    """What a stream carries beside its text."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class ChatRequest(Body):
    """A chat completion request. Fields that OpenAI documents and that change nothing here are accepted."""

    model: Annotated[str, Field(min_length=1, max_length=128, description="The agent's name or id.", examples=["echo"])]
    messages: Annotated[
        list[ChatMessage],
        Field(fail_fast=True, min_length=1, max_length=2048, examples=[[{"role": "user", "content": "Hello"}]]),
    ]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    stop: str | Annotated[list[str], Field(fail_fast=True, max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Literal[1] | None = None
    tools: Annotated[list[ChatTool], Field(fail_fast=True, max_length=128), FewPatterns] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    reasoning_effort: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    verbosity: str | None = None

    def overrides(self) -> Overrides:
        """What the run does differently from its agent."""
        format_ = self.response_format
        schema = format_.json_schema if format_ and format_.type == "json_schema" else None
        limits = [limit for limit in (self.max_tokens, self.max_completion_tokens) if limit is not None]
        return Overrides(
            max_output_tokens=min(limits) if limits else None,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            seed=self.seed,
            output_schema=schema.schema_ if schema else None,
            output_name=schema.name if schema else None,
            json_object=bool(format_ and format_.type == "json_object"),
            tools=tuple(tool.function.model_dump(exclude_none=True) for tool in self.tools or ()),
            tool_choice=choice_name(self.tool_choice),
            parallel_tool_calls=self.parallel_tool_calls,
        )


class FunctionCall(BaseModel):
    """A function and its arguments (JSON text)."""

    name: str
    arguments: str


class MessageToolCall(BaseModel):
    """A call of one of the caller's tools."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class AssistantMessage(BaseModel):
    """The agent's answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    tool_calls: list[MessageToolCall] | None = None


class Choice(BaseModel):
    """The one choice."""

    index: int
    message: AssistantMessage
    logprobs: None = None
    finish_reason: str


class Usage(BaseModel):
    """What the run used."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    """A chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


@router.post(
    "/v1/chat/completions",
    operation_id="create_chat_completion",
    summary="Create a chat completion",
    response_model=ChatCompletion,
    responses={
        200: {
            "description": "The completion, or its stream of chunks",
            "content": {"text/event-stream": {}},
        },
        **OPENAI_PROBLEMS,
    },
)
async def create_chat_completion(call: RunsWrite, body: ChatRequest) -> Response:
    """Answer a conversation with an agent, whole or as a stream. Each call is a run, which `X-Run-Id` names."""
    refuse_unsupported(body.messages)
    ask = Ask(
        kind="chat.completion",
        mode="stream" if body.stream else "wait",
        messages=[message.plain() for message in body.messages],
        overrides=body.overrides(),
        agent=body.model,
    )
    launched = await launch(call, ask)
    run, headers = launched.run, {"X-Run-Id": launched.run.run_id}
    if launched.replayed:
        headers["Idempotent-Replayed"] = "true"
    if not body.stream:
        return Response(render(run, body.model), media_type="application/json", headers=headers)
    chunks = _Chunks(run, body.model, usage=bool(body.stream_options and body.stream_options.include_usage))
    if launched.execution and launched.channel:
        return sse.EventStream(_stream(call, chunks, launched.execution, launched.channel), headers)
    return sse.EventStream(_replay(chunks, run), headers)


def render(run: Run, model: str) -> bytes:
    """The completion of a finished run. Raises what made the run fail."""
    failure = failure_of(run)
    if failure is not None:
        raise failure
    output = run.output or Output("")
    message: dict[str, Any] = {"role": "assistant", "content": output.text or None, "refusal": None}
    if output.tool_calls:
        message["tool_calls"] = _tool_calls(output)
    else:
        message["content"] = output.text
    return orjson.dumps(
        {
            "id": f"chatcmpl-{run.run_id}",
            "object": "chat.completion",
            "created": run.created_at // SECOND,
            "model": model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": output.finish_reason}],
            "usage": _usage(run.input_tokens, run.output_tokens),
        }
    )


def _tool_calls(output: Output) -> list[dict[str, Any]]:
    return [
        {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in output.tool_calls
    ]


def _usage(input_tokens: int, output_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }


class _Chunks:
    """A run's events as chat completion chunks."""

    def __init__(self, run: Run, model: str, *, usage: bool) -> None:
        self._head = {
            "id": f"chatcmpl-{run.run_id}",
            "object": "chat.completion.chunk",
            "created": run.created_at // SECOND,
            "model": model,
        }
        self._usage = usage
        self.spoken = False

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        body = {**self._head, "choices": [choice]}
        if self._usage:
            body["usage"] = None
        return sse.event(orjson.dumps(body))

    def begin(self) -> bytes:
        """The first chunk."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def of(self, event: RunEvent) -> bytes:
        """The chunks of an event; empty for those that OpenAI's protocol has no word for."""
        if event.type == "text.delta":
            self.spoken = True
            return self._chunk({"content": event.data["text"]})
        if event.type == "run.completed":
            return self._end(event.data)
        if event.terminal:
            return self.failed(failure_from_event(event.data))
        return b""

    def failed(self, error: KgentsError) -> bytes:
        """The end of a stream whose run failed: OpenAI's SDKs raise what `error` holds."""
        return sse.event(orjson.dumps(openai_error(error)))

    def _end(self, data: dict[str, Any]) -> bytes:
        output = data["output"]
        parts = []
        if output["text"] and not self.spoken:
            parts.append(self._chunk({"content": output["text"]}))
        for index, call in enumerate(output["tool_calls"]):
            function = {"name": call["name"], "arguments": call["arguments"]}
            delta = {"index": index, "id": call["id"], "type": "function", "function": function}
            parts.append(self._chunk({"tool_calls": [delta]}))
        parts.append(self._chunk({}, output["finish_reason"]))
        if self._usage:
            usage = _usage(data["usage"]["input_tokens"], data["usage"]["output_tokens"])
            parts.append(sse.event(orjson.dumps({**self._head, "choices": [], "usage": usage})))
        parts.append(sse.event(b"[DONE]"))
        return b"".join(parts)


async def _stream(call: Call, chunks: _Chunks, execution: Execution, channel: Channel) -> AsyncIterator[bytes]:
    yield chunks.begin()
    ended = False
    try:
        async with aclosing(live(call, channel)) as events:
            async for event in events:
                if event is None:
                    yield sse.PING
                    continue
                ended = event.terminal
                if data := chunks.of(event):
                    yield data
    except Unauthenticated as error:
        yield chunks.failed(error)
        return
    if not ended:
        yield await _unended(chunks, execution)


async def _unended(chunks: _Chunks, execution: Execution) -> bytes:
    try:
        run = await execution.result()
    except KgentsError as error:
        return sse.retry() + chunks.failed(error)
    type_, data = end_event_of(run)
    return chunks.of(RunEvent(run.last_event or 0, type_, data))


async def _replay(chunks: _Chunks, run: Run) -> AsyncIterator[bytes]:
    yield chunks.begin()
    type_, data = end_event_of(run)
    yield chunks.of(RunEvent(run.last_event or 0, type_, data))
