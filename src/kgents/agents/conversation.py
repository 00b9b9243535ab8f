"""Between what is recorded (JSON) and what a model is given (pydantic-ai's messages, settings and parameters)."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic_ai.messages import (
    BinaryContent,
    ImageUrl,
    InstructionPart,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserContent,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from kgents.agents.model import AgentDefinition, Output, Overrides, ToolCall
from kgents.errors import Conflict, InvalidRequest

_MESSAGE: TypeAdapter[ModelMessage] = TypeAdapter(ModelMessage)
_HALF = re.compile("[\ud800-\udfff]")


def dump_message(message: ModelMessage) -> str:
    """The JSON text of a message, in pydantic-ai's form."""
    return _MESSAGE.dump_json(message).decode()


def load_message(value: str) -> ModelMessage:
    """The message of its JSON text. Raises Conflict (`message-unreadable`) where that can't be read as one."""
    try:
        return _MESSAGE.validate_json(value)
    except ValidationError as error:
        raise Conflict(
            "An earlier message of this conversation is recorded in a form that can't be read. Begin another one.",
            code="message-unreadable",
        ) from error


def sound(response: ModelResponse) -> ModelResponse:
    """A model's response with the types that it is to have, and well-formed text: providers' JSON is read leniently,
    but what is recorded has to be read again, and to be JSON.
    """
    response.provider_response_id = _string_or_none(response.provider_response_id)
    response.model_name = _string_or_none(response.model_name)
    for part in response.parts:
        if isinstance(part, TextPart | ThinkingPart):
            part.content = string(part.content)
        elif isinstance(part, ToolCallPart):
            part.tool_name, part.tool_call_id = string(part.tool_name), string(part.tool_call_id)
            part.args = _arguments(part.args)
    return response


def _arguments(args: Any) -> Any:
    if isinstance(args, dict):
        try:
            orjson.dumps(args)
        except TypeError:  # as it has halves of characters
            return string(json.dumps(args, ensure_ascii=False))
        return args
    return None if args is None else string(args)


def string(value: Any) -> str:
    """`value` as well-formed Unicode: halves of a character (surrogates) are joined, and those that stay alone become
    U+FFFD, as the Unicode standard has it (section 3.9).
    """
    text = value if isinstance(value, str) else str(value)
    if not text.isascii() and _HALF.search(text):
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _string_or_none(value: Any) -> str | None:
    return None if value is None else string(value)


def before_half(text: str) -> int:
    """How many characters of `text` are whole, when what comes next may be the second half of its last one."""
    return len(text) - ("\ud800" <= text[-1:] <= "\udbff")


def said(response: ModelResponse) -> str:
    """All that a model has said: texts, thoughts, and the tools that it calls with their arguments."""
    return "".join(
        part.content
        if isinstance(part, TextPart | ThinkingPart)
        else part.tool_name + part.args_as_json_str()
        if isinstance(part, ToolCallPart)
        else ""
        for part in response.parts
    )


def _content(content: Any) -> str | list[UserContent]:
    if isinstance(content, str):
        return content
    parts: list[UserContent] = []
    for part in content:
        if part["type"] == "text":
            parts.append(part["text"])
        else:
            parts.append(_image(part["image_url"]["url"]))
    return parts


def _image(url: str) -> UserContent:
    if not url.startswith("data:"):
        return ImageUrl(url)
    header, _, data = url[5:].partition(",")
    media_type, _, encoding = header.partition(";")
    if encoding != "base64" or not media_type.startswith("image/"):
        raise InvalidRequest("an image's data URL must look like data:image/png;base64,...", param="image_url")
    try:
        return BinaryContent(base64.b64decode(data, validate=True), media_type=media_type)
    except ValueError as error:  # binascii.Error, which is one, and another for what is not ASCII
        raise InvalidRequest("an image's data URL must hold valid base64", param="image_url") from error


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part["text"] for part in content if part["type"] == "text")


def from_chat(messages: Iterable[dict[str, Any]], earlier: Sequence[ModelMessage] = ()) -> list[ModelMessage]:
    """Chat messages (`role`, `content`, `tool_calls`, `tool_call_id`) as a model's history, to follow on `earlier`.

    Raises InvalidRequest for a tool message without the call that it answers.
    """
    history: list[ModelMessage] = []
    parts: list[Any] = []
    names = {
        part.tool_call_id: part.tool_name
        for message in earlier
        for part in message.parts
        if isinstance(part, ToolCallPart)
    }

    def flush() -> None:
        if parts:
            history.append(ModelRequest(parts=list(parts)))
            parts.clear()

    for message in messages:
        role = message["role"]
        if role == "user":
            parts.append(UserPromptPart(_content(message["content"])))
        elif role in ("system", "developer"):
            parts.append(SystemPromptPart(_text(message["content"])))
        elif role == "tool":
            call_id = message["tool_call_id"]
            if call_id not in names:
                raise InvalidRequest(
                    f"The tool message for {call_id!r} answers no earlier tool call. Send the assistant message with "
                    "that tool call before it.",
                    param="messages",
                )
            parts.append(ToolReturnPart(names[call_id], _text(message["content"]), call_id))
        else:
            flush()
            history.append(_response(message, names))
    flush()
    return history


def _response(message: dict[str, Any], names: dict[str, str]) -> ModelResponse:
    parts: list[TextPart | ToolCallPart] = []
    if text := _text(message.get("content")):
        parts.append(TextPart(text))
    for call in message.get("tool_calls") or ():
        names[call["id"]] = call["function"]["name"]
        parts.append(ToolCallPart(call["function"]["name"], call["function"]["arguments"], call["id"]))
    return ModelResponse(parts=parts)


def settings_of(definition: AgentDefinition, overrides: Overrides) -> ModelSettings:
    """The model settings of a run: the agent's, as far as the caller did not ask for others."""
    limit = definition.limits.max_output_tokens
    asked = overrides.max_output_tokens
    settings = ModelSettings(max_tokens=limit if asked is None else min(asked, limit))
    temperature = definition.temperature if overrides.temperature is None else overrides.temperature
    if temperature is not None:
        settings["temperature"] = temperature
    if overrides.top_p is not None:
        settings["top_p"] = overrides.top_p
    if overrides.stop:
        settings["stop_sequences"] = list(overrides.stop)
    if overrides.seed is not None:
        settings["seed"] = overrides.seed
    if overrides.parallel_tool_calls is not None:
        settings["parallel_tool_calls"] = overrides.parallel_tool_calls
    if overrides.tool_choice in ("auto", "none", "required"):
        settings["tool_choice"] = overrides.tool_choice  # type: ignore[typeddict-item]
    elif overrides.tool_choice is not None:
        settings["tool_choice"] = [overrides.tool_choice]
    return settings


def parameters_of(
    definition: AgentDefinition, overrides: Overrides, tools: Sequence[ToolDefinition], model: Model
) -> ModelRequestParameters:
    """The request parameters of a run: its tools (the agent's and the caller's) and the form of its output."""
    callers = [
        ToolDefinition(
            name=tool["name"],
            parameters_json_schema=tool.get("parameters") or {"type": "object", "properties": {}},
            description=tool.get("description"),
            strict=tool.get("strict"),
        )
        for tool in overrides.tools
    ]
    # Where a caller's tool has the name of one of the agent's, the caller's is meant.
    own = [tool for tool in tools if tool.name not in {caller.name for caller in callers}] if callers else tools
    parameters = ModelRequestParameters(function_tools=[*own, *callers])
    instructions = [text for text in (definition.instructions, overrides.instructions) if text]
    if instructions:
        parameters.instruction_parts = [InstructionPart(text) for text in instructions]
    schema = output_schema(definition, overrides)
    if schema is not None:
        native = model.profile.get("supports_json_schema_output", False)
        parameters.output_mode = "native" if native else "prompted"
        parameters.output_object = OutputObjectDefinition(json_schema=schema, name=overrides.output_name or "output")
    return parameters


def output_schema(definition: AgentDefinition, overrides: Overrides) -> dict[str, Any] | None:
    """The JSON schema that a run's answer has to match, if any."""
    if overrides.output_schema is not None:
        return overrides.output_schema
    return {"type": "object"} if overrides.json_object else definition.output_schema


def output_of(response: ModelResponse, callers_tools: frozenset[str]) -> Output:
    """What a final response answers: its text, and its calls of the caller's tools."""
    text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
    calls = tuple(
        ToolCall(part.tool_call_id, part.tool_name, part.args_as_json_str())
        for part in response.parts
        if isinstance(part, ToolCallPart) and part.tool_name in callers_tools
    )
    if calls:
        return Output(text, calls, "tool_calls")
    return Output(
        text, (), {"length": "length", "content_filter": "content_filter"}.get(response.finish_reason or "", "stop")
    )


def public_messages(message: ModelMessage) -> list[dict[str, Any]]:
    """A recorded message in the chat form that the API shows."""
    if isinstance(message, ModelResponse):
        text = "".join(part.content for part in message.parts if isinstance(part, TextPart))
        calls = [
            {"id": part.tool_call_id, "name": part.tool_name, "arguments": part.args_as_json_str()}
            for part in message.parts
            if isinstance(part, ToolCallPart)
        ]
        return [{"role": "assistant", "content": text, "tool_calls": calls}]
    shown: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, UserPromptPart):
            content = part.content if isinstance(part.content, str) else _shown_content(part.content)
            shown.append({"role": "user", "content": content})
        elif isinstance(part, SystemPromptPart):
            shown.append({"role": "system", "content": part.content})
        elif isinstance(part, ToolReturnPart):
            shown.append({"role": "tool", "content": str(part.content), "tool_call_id": part.tool_call_id})
    return shown


def _shown_content(content: Sequence[UserContent]) -> str:
    return " ".join(part if isinstance(part, str) else "[image]" for part in content)
