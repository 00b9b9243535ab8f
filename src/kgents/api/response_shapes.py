"""The shapes of OpenAI's Responses API: its request, its response object, and its stream's events."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from kgents.agents.events import RunEvent
from kgents.agents.model import Overrides, Run
from kgents.agents.runner import output_document
from kgents.api import sse
from kgents.api.body import Body
from kgents.api.openai_input import FewPatterns, Name, Schema
from kgents.api.problems import openai_error
from kgents.clock import SECOND
from kgents.errors import InvalidRequest, KgentsError


def response_id(run_id: str) -> str:
    """The response id of a run."""
    return "resp_" + run_id.removeprefix("run_")


def run_id_of(response: str) -> str:
    """The run id of a response id."""
    return "run_" + response.removeprefix("resp_")


class InputText(Body):
    """Text."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["input_text", "output_text"]
    text: str


class InputImage(Body):
    """An image by https or data URL."""

    type: Literal["input_image"]
    image_url: Annotated[str, Field(pattern=r"^(https://|data:image/)", max_length=20_000_000)]
    detail: str | None = None


class InputMessage(Body):
    """A message."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | Annotated[list[InputText | InputImage], Field(fail_fast=True, max_length=256)]


class InputFunctionCall(Body):
    """A call that an earlier response made."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["function_call"]
    call_id: Annotated[str, Field(min_length=1, max_length=128)]
    name: Name
    arguments: str


class InputFunctionOutput(Body):
    """What a call of the caller's function gave."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["function_call_output"]
    call_id: Annotated[str, Field(min_length=1, max_length=128)]
    output: str | Annotated[list[InputText], Field(fail_fast=True)]


InputItem = InputMessage | InputFunctionCall | InputFunctionOutput


class FunctionTool(Body):
    """A function that the caller can carry out."""

    type: Literal["function"]
    name: Name
    description: Annotated[str, Field(max_length=4096)] | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class NamedTool(Body):
    """The one tool that must be called."""

    type: Literal["function"]
    name: Name


class TextFormat(Body):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: Name | None = None
    schema_: Annotated[Schema | None, Field(alias="schema")] = None
    description: str | None = None
    strict: bool | None = None


class TextConfig(Body):
    """How the answer's text is to be."""

    format: TextFormat | None = None
    verbosity: str | None = None


class ResponsesRequest(Body):
    """A request for a response. Fields that OpenAI documents and that change nothing here are accepted."""

    model: (
        Annotated[str, Field(min_length=1, max_length=128, description="The agent's name or id.", examples=["echo"])]
        | None
    ) = None
    input: Annotated[
        Annotated[str, Field(min_length=1)]
        | Annotated[list[InputItem], Field(fail_fast=True, min_length=1, max_length=2048)],
        Field(examples=["Hello"]),
    ]
    instructions: Annotated[str, Field(max_length=100_000)] | None = None
    previous_response_id: Annotated[str, Field(max_length=64)] | None = None
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    background: bool | None = False
    store: bool | None = True
    max_output_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    tools: Annotated[list[FunctionTool], Field(fail_fast=True, max_length=128), FewPatterns] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    include: Annotated[list[str], Field(fail_fast=True)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    reasoning: dict[str, Any] | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    max_tool_calls: int | None = None

    def messages(self) -> list[dict[str, Any]]:
        """The input as chat messages, which is how a run records it."""
        if isinstance(self.input, str):
            return [{"role": "user", "content": self.input}]
        return [_message(item) for item in self.input]

    def overrides(self) -> Overrides:
        """What the run does differently from its agent. Raises InvalidRequest for a schema format without a schema."""
        format_ = self.text.format if self.text else None
        if format_ and format_.type == "json_schema" and format_.schema_ is None:
            raise InvalidRequest("text.format of type json_schema needs a schema.", param="text.format.schema")
        choice = self.tool_choice
        return Overrides(
            instructions=self.instructions,
            store=self.store is not False,
            max_output_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            output_schema=format_.schema_ if format_ else None,
            output_name=format_.name if format_ else None,
            json_object=bool(format_ and format_.type == "json_object"),
            tools=tuple(tool.model_dump(exclude={"type"}, exclude_none=True) for tool in self.tools or ()),
            tool_choice=choice.name if isinstance(choice, NamedTool) else choice,
            parallel_tool_calls=self.parallel_tool_calls,
        )


def _message(item: InputItem) -> dict[str, Any]:
    if isinstance(item, InputFunctionCall):
        function = {"name": item.name, "arguments": item.arguments}
        return {"role": "assistant", "content": None, "tool_calls": [{"id": item.call_id, "function": function}]}
    if isinstance(item, InputFunctionOutput):
        text = item.output if isinstance(item.output, str) else "".join(part.text for part in item.output)
        return {"role": "tool", "content": text, "tool_call_id": item.call_id}
    if isinstance(item.content, str):
        return {"role": item.role, "content": item.content}
    return {"role": item.role, "content": [_part(part) for part in item.content]}


def _part(part: InputText | InputImage) -> dict[str, Any]:
    if isinstance(part, InputText):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": part.image_url}}


class ResponseDocument(BaseModel):
    """A response."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    model: str
    output: list[dict[str, Any]]
    error: dict[str, Any] | None
    usage: dict[str, Any] | None


class Deleted(BaseModel):
    """A response was deleted."""

    id: str
    object: Literal["response.deleted"] = "response.deleted"
    deleted: bool = True


_STATUS = {
    "queued": "queued",
    "running": "in_progress",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}


def document(run: Run, model: str) -> dict[str, Any]:
    """A run as OpenAI's response object."""
    end = {"output": output_document(run.output), "error": run.error}
    usage = (run.input_tokens, run.output_tokens) if run.finished else None
    return _document(run, model, _STATUS[run.status], end, usage)


def _document(run: Run, model: str, status: str, end: dict[str, Any], usage: tuple[int, int] | None) -> dict[str, Any]:
    output = end["output"]
    cut = status == "completed" and output is not None and output["finish_reason"] == "length"
    overrides = run.input.get("overrides", {})
    previous = run.previous_run_id
    error = end["error"]
    return {
        "id": response_id(run.run_id),
        "object": "response",
        "created_at": run.created_at // SECOND,
        "status": "incomplete" if cut else status,
        "background": run.mode == "background",
        "error": {"code": error["code"].replace("-", "_"), "message": error["detail"]} if error else None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": overrides.get("instructions"),
        "max_output_tokens": overrides.get("max_output_tokens"),
        "metadata": {},
        "model": model,
        "output": output_items(run.run_id, output) if output else [],
        "parallel_tool_calls": overrides.get("parallel_tool_calls", True),
        "previous_response_id": response_id(previous) if previous else None,
        "temperature": overrides.get("temperature"),
        "text": {"format": {"type": "text"}},
        "tool_choice": overrides.get("tool_choice", "auto"),
        "tools": [
            {"type": "function", "parameters": None, "strict": None, **tool} for tool in overrides.get("tools", ())
        ],
        "top_p": overrides.get("top_p"),
        "truncation": "disabled",
        "usage": _usage(*usage) if usage else None,
    }


def _usage(input_tokens: int, output_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input_tokens + output_tokens,
    }


def output_items(run_id: str, output: dict[str, Any]) -> list[dict[str, Any]]:
    """A run's output as the items of a response: a message, then the calls of the caller's functions."""
    items: list[dict[str, Any]] = []
    if output["text"] or not output["tool_calls"]:
        items.append(message_item(run_id, output["text"], "completed"))
    items += [
        {
            "type": "function_call",
            "id": f"fc_{call['id']}",
            "call_id": call["id"],
            "name": call["name"],
            "arguments": call["arguments"],
            "status": "completed",
        }
        for call in output["tool_calls"]
    ]
    return items


def message_item(run_id: str, text: str, status: str) -> dict[str, Any]:
    """The message of a response."""
    content = [output_text(text)] if status == "completed" else []
    return {"type": "message", "id": _message_id(run_id), "status": status, "role": "assistant", "content": content}


def output_text(text: str) -> dict[str, Any]:
    """A part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _message_id(run_id: str) -> str:
    return "msg_" + run_id.removeprefix("run_")


class Translator:
    """A run's events as a response's stream events, numbered the same on every replay; those up to `after` are left
    out.
    """

    def __init__(self, run: Run, model: str, *, after: int | None = None) -> None:
        self._run = run
        self._model = model
        self._after = -1 if after is None else after
        self._number = -1
        self._open = False

    def of(self, event: RunEvent) -> bytes:
        """The stream events of a run event, on the wire; empty for those that the protocol has no word for."""
        if event.type == "run.created":
            return self._begin()
        if event.type == "text.delta":
            return self._open_message() + self._part(
                "response.output_text.delta", delta=event.data["text"], logprobs=[]
            )
        if event.terminal:
            return self._end(event.data)
        return b""

    def refused(self, error: KgentsError) -> bytes:
        """The end of a stream whose caller may read no more of it."""
        self._number = max(self._number, self._after)  # it is no part of the replay, and is never left out
        told = openai_error(error)["error"]
        return self._event("error", code=told["code"], message=told["message"], param=told["param"])

    def _event(self, type_: str, **fields: Any) -> bytes:
        self._number += 1
        if self._number <= self._after:
            return b""
        body = {"type": type_, "sequence_number": self._number, **fields}
        return sse.event(orjson.dumps(body), type_=type_)

    def _part(self, type_: str, **fields: Any) -> bytes:
        return self._event(type_, item_id=_message_id(self._run.run_id), output_index=0, content_index=0, **fields)

    def _begin(self) -> bytes:
        body = _document(self._run, self._model, "in_progress", {"output": None, "error": None}, None)
        return self._event("response.created", response=body) + self._event("response.in_progress", response=body)

    def _open_message(self) -> bytes:
        if self._open:
            return b""
        self._open = True
        item = message_item(self._run.run_id, "", "in_progress")
        return self._event("response.output_item.added", output_index=0, item=item) + self._part(
            "response.content_part.added", part=output_text("")
        )

    def _end(self, data: dict[str, Any]) -> bytes:
        parts = [self._begin()] if self._number < 0 else []
        usage = (data["usage"]["input_tokens"], data["usage"]["output_tokens"])
        final = _document(self._run, self._model, data["status"], data, usage)
        for index, item in enumerate(final["output"]):
            if item["type"] == "message":
                parts.append(self._close_message(item))
            else:
                parts.append(self._call(index, item))
        name = "failed" if final["status"] == "cancelled" else final["status"]
        parts.append(self._event(f"response.{name}", response=final))
        return b"".join(parts)

    def _close_message(self, item: dict[str, Any]) -> bytes:
        text = item["content"][0]["text"]
        return (
            self._open_message()
            + self._part("response.output_text.done", text=text, logprobs=[])
            + self._part("response.content_part.done", part=item["content"][0])
            + self._event("response.output_item.done", output_index=0, item=item)
        )

    def _call(self, index: int, item: dict[str, Any]) -> bytes:
        begun = {**item, "arguments": "", "status": "in_progress"}
        where = {"item_id": item["id"], "output_index": index}
        return (
            self._event("response.output_item.added", output_index=index, item=begun)
            + self._event("response.function_call_arguments.delta", delta=item["arguments"], **where)
            + self._event(
                "response.function_call_arguments.done", arguments=item["arguments"], name=item["name"], **where
            )
            + self._event("response.output_item.done", output_index=index, item=item)
        )
