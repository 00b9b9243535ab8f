"""The parts of OpenAI's requests that its routes share: messages, tools, formats. Unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from kgents.agents.models.json_bounds import check_tools_patterns, patterns_in
from kgents.agents.models.json_schema import check_schema
from kgents.api.body import Body
from kgents.errors import InvalidRequest, Unprocessable

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]


def _schema(value: dict[str, Any]) -> dict[str, Any]:
    try:
        check_schema(value)
    except Unprocessable as error:
        raise ValueError(error.detail) from error
    return value


def _few_patterns(tools: Any) -> Any:
    try:
        check_tools_patterns(patterns_in(tools))
    except Unprocessable as error:
        raise ValueError(error.detail) from error
    return tools


Schema = Annotated[dict[str, Any], AfterValidator(_schema)]
FewPatterns = BeforeValidator(_few_patterns)  # of a list of tools, before the first of their patterns is compiled


class TextPart(Body):
    """Text."""

    type: Literal["text"]
    text: str


class ImageSource(Body):
    """An image by https or data URL."""

    url: Annotated[str, Field(pattern=r"^(https://|data:image/)", max_length=20_000_000)]
    detail: str | None = None


class ImagePart(Body):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageSource


class CalledFunction(Body):
    """A function that the model called, with its arguments as JSON text."""

    name: Name
    arguments: str


class AssistantToolCall(Body):
    """A call in an assistant message."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Body):
    """A message of the conversation. Which fields it needs depends on its role."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart | ImagePart], Field(fail_fast=True, max_length=256)] | None = None
    name: str | None = None
    tool_calls: Annotated[list[AssistantToolCall], Field(fail_fast=True, max_length=128)] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _complete(self) -> ChatMessage:
        if self.role == "tool" and not self.tool_call_id:
            raise ValueError("a tool message needs tool_call_id")
        if self.role != "assistant" and self.content is None:
            raise ValueError(f"a {self.role} message needs content")
        if self.role == "assistant" and self.content is None and not self.tool_calls:
            raise ValueError("an assistant message needs content or tool_calls")
        return self

    def plain(self) -> dict[str, Any]:
        """The message as a run's input records it."""
        if self.tool_calls is None and isinstance(self.content, str) and self.tool_call_id is None:
            return {"role": self.role, "content": self.content}
        fields = {"role", "content", "tool_calls", "tool_call_id"}
        return self.model_dump(include=fields, exclude_none=True) | {"content": self._plain_content()}

    def _plain_content(self) -> Any:
        if self.content is None or isinstance(self.content, str):
            return self.content
        return [part.model_dump(exclude_none=True) for part in self.content]


def refuse_unsupported(messages: list[ChatMessage]) -> None:
    """Raise InvalidRequest for a conversation that has nothing to answer."""
    if messages[-1].role == "assistant":
        raise InvalidRequest("The last message is the assistant's; send a user or tool message last.", param="messages")


class ToolFunction(Body):
    """A function that the caller can carry out."""

    name: Name
    description: Annotated[str, Field(max_length=4096)] | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class ChatTool(Body):
    """A tool of the caller's. Its calls are passed through, never carried out here."""

    type: Literal["function"]
    function: ToolFunction


class NamedFunction(Body):
    """The name of a function."""

    name: Name


class NamedToolChoice(Body):
    """The one tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["auto", "none", "required"] | NamedToolChoice


def choice_name(choice: ToolChoice | None) -> str | None:
    """`auto`, `none`, `required`, a tool's name, or None."""
    return choice.function.name if isinstance(choice, NamedToolChoice) else choice


class JsonSchemaFormat(Body):
    """A JSON schema that the answer must match."""

    name: Name
    schema_: Annotated[Schema | None, Field(alias="schema")] = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Body):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _complete(self) -> ResponseFormat:
        if self.type == "json_schema" and (self.json_schema is None or self.json_schema.schema_ is None):
            raise ValueError("json_schema needs a name and a schema")
        return self
