"""Counting tokens: exactly for `kgents:echo`, and never too low for a provider's model.

The tokenizer needs no download: a token is up to 4 letters, digits or underscores, one other sign, or up to 16
characters of a run of whitespace. Single spaces and line ends are free.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    TextContent,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserContent,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters

ATTACHMENT_TOKENS = 256
"""What an image or file costs in the count of `kgents:echo`."""

_PIECES = re.compile(r"\w{1,4}|[^\w\s]|\s{2,16}").findall

# Tokens that a provider's rendering adds around the text: upper bounds, generous since providers don't publish them.
_PER_PART = 16
_PER_TOOL = 64
_FOR_ANY_TOOL = 1024
_FOR_OUTPUT_SCHEMA = 512
# The dearest published rule for an image: gpt-4o-mini's 2,833 tokens and 5,667 for each of at most 8 tiles.
_PER_ATTACHMENT = 50_000


def count_tokens(text: str) -> int:
    """The number of tokens of `text`. Words counted one by one add up to the count of the whole text."""
    return len(_PIECES(text))


def part_tokens(part: Any) -> int:
    """The number of tokens of one part of a message."""
    return _measure(part, count_tokens, _attachment_count)


def count_messages(messages: Iterable[ModelMessage]) -> int:
    """The number of tokens of everything that was said in `messages`."""
    return sum(_measure(part, count_tokens, _attachment_count) for message in messages for part in message.parts)


def count_request(messages: Iterable[ModelMessage], parameters: ModelRequestParameters) -> int:
    """The number of input tokens of a request: its messages, instructions, tools and output schema."""
    total = count_messages(messages)
    for text in _parameter_texts(parameters):
        total += count_tokens(text)
    return total


def bound_request(messages: Sequence[ModelMessage], parameters: ModelRequestParameters) -> int:
    """An upper bound of a request's input tokens for any model whose tokens are at least one byte long."""
    total = _PER_PART
    for message in messages:
        for part in message.parts:
            total += _measure(part, _byte_count, _attachment_bound) + _PER_PART
    for text in _parameter_texts(parameters):
        total += _byte_count(text) + _PER_PART
    tools = len(parameters.function_tools) + len(parameters.output_tools)
    if tools:
        total += _FOR_ANY_TOOL + tools * _PER_TOOL
    if parameters.output_object is not None:
        total += _FOR_OUTPUT_SCHEMA
    return total


def text_of(content: str | Sequence[UserContent]) -> str:
    """The text of a user's content; what is not text shows as `[image-url]`, `[binary]` and the like."""
    if isinstance(content, str):
        return content
    return " ".join(_content_text(item) or f"[{getattr(item, 'kind', 'attachment')}]" for item in content)


def _content_text(item: UserContent) -> str | None:
    if isinstance(item, str):
        return item
    return item.content if isinstance(item, TextContent) else None


def _byte_count(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _attachment_count(_item: Any) -> int:
    return ATTACHMENT_TOKENS


def _attachment_bound(item: Any) -> int:
    return max(_PER_ATTACHMENT, len(item.data) if isinstance(item, BinaryContent) else 0)


def _measure(part: Any, measure: Callable[[str], int], attachment: Callable[[Any], int]) -> int:
    """What one part of a message weighs."""
    if isinstance(part, UserPromptPart):
        content = part.content
        if isinstance(content, str):
            return measure(content)
        texts = [(_content_text(item), item) for item in content]
        return sum(attachment(item) if text is None else measure(text) for text, item in texts)
    if isinstance(part, TextPart):
        return measure(part.content)
    if isinstance(part, ToolReturnPart):
        returned = part.content
        return measure(part.tool_name) + measure(returned if isinstance(returned, str) else part.model_response_str())
    if isinstance(part, ToolCallPart):
        return measure(part.tool_name) + measure(part.args_as_json_str())
    other = getattr(part, "content", None)
    if other is None:
        return 0
    return measure(other) if isinstance(other, str) else attachment(other)


def _parameter_texts(parameters: ModelRequestParameters) -> Iterable[str]:
    for instruction in parameters.instruction_parts or ():
        yield instruction.content
    for tool in (*parameters.function_tools, *parameters.output_tools):
        yield tool.name
        if tool.description:
            yield tool.description
        yield orjson.dumps(tool.parameters_json_schema).decode()
    if parameters.output_object is not None:
        yield orjson.dumps(parameters.output_object.json_schema).decode()
