"""What `kgents:echo` answers: a function of the request alone (see echo.py for what it understands)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson
from pydantic_ai.messages import (
    FinishReason,
    ModelMessage,
    ModelRequest,
    ModelResponsePart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from kgents.agents.models.json_schema import check_schema, complaint, smallest
from kgents.agents.models.tokens import count_tokens, text_of
from kgents.errors import Unprocessable

MAX_SLEEP = 30.0
MAX_WORDS = 100_000
MAX_CALLS = 256

_CALL = re.compile(r"/call[ \t]+([\w.-]+)[ \t]*(.*)")
_SLEEP = re.compile(r"(?:/sleep[ \t]+(\d+(?:\.\d+)?|\.\d+)\s*)++(.*)", re.DOTALL)  # of several, the last counts
_FAIL = re.compile(r"/fail(?:[ \t]+([45]\d\d))?\s*")
_WORDS = re.compile(r"/words[ \t]+(\d{1,9})\s*")
_PIECE = re.compile(r"\w{1,4}|[^\w\s]|\s{2,16}")


@dataclass(slots=True)
class Answer:
    """What the model is going to say, and with which pauses (in seconds) between the words."""

    parts: list[ModelResponsePart]
    output_tokens: int
    finish_reason: FinishReason
    pause: float = 0.0
    fail_with: int = 0

    def words(self) -> list[str]:
        """The words of the answer, each with the whitespace after it."""
        return [word for part in self.parts if isinstance(part, TextPart) for word in split_words(part.content)]


_WORD = re.compile(r"\s*\S+\s*|\s+")


def split_words(text: str) -> list[str]:
    """`text` cut behind each word's whitespace; joined they are `text` again, and their token counts add up."""
    return _WORD.findall(text)


def answer_to(
    messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
) -> Answer:
    """What the model answers to a request."""
    text, results = _heard(messages)
    limit = settings.get("max_tokens") if settings else None
    stops = settings.get("stop_sequences") if settings else None
    pause, status = 0.0, 0
    if not results and text.startswith("/"):
        if found := _SLEEP.fullmatch(text):
            pause, text = min(float(found[1]), MAX_SLEEP), found[2] or "slept"
        if failed := _FAIL.fullmatch(text):
            status = int(failed[1] or 500)
        elif counted := _WORDS.fullmatch(text):
            count = min(int(counted[1]), MAX_WORDS, limit or MAX_WORDS)
            text = " ".join([f"w{number % 1000}" for number in range(count)])
    if not results and (parameters.function_tools or parameters.output_tools):
        calls = _calls(text, settings, parameters, len(messages))
        if calls:
            used = sum(count_tokens(call.tool_name) + count_tokens(call.args_as_json_str()) for call in calls)
            return Answer(list(calls), used, "tool_call", pause, status)
    if parameters.output_object is not None:
        text = _structured(text, parameters.output_object.json_schema)
    finish: FinishReason = "stop"
    if stops:
        text = text[: min([at for stop in stops if stop and (at := text.find(stop)) >= 0], default=len(text))]
    used = count_tokens(text)
    if limit is not None and used > limit:
        text, used, finish = _cut(text, limit), limit, "length"
    return Answer([TextPart(text)], used, finish, pause, status)


def _heard(messages: list[ModelMessage]) -> tuple[str, bool]:
    """The text to answer with, and whether it is the results of tools."""
    for message in reversed(messages):
        if not isinstance(message, ModelRequest):
            continue
        results: list[str] = []
        for part in reversed(message.parts):
            if isinstance(part, UserPromptPart):
                return text_of(part.content), False
            if isinstance(part, ToolReturnPart):
                results.append(part.model_response_str())
        if results:
            return "\n".join(reversed(results)), True
    return "", False


def _calls(
    text: str, settings: ModelSettings | None, parameters: ModelRequestParameters, turn: int
) -> list[ToolCallPart]:
    choice = settings.get("tool_choice") if settings else None
    if choice == "none":
        return []
    tools = {tool.name: tool for tool in (*parameters.function_tools, *parameters.output_tools)}
    calls: list[ToolCallPart] = []
    if text.startswith("/call"):
        for line in text.splitlines():
            found = _CALL.fullmatch(line.strip())
            if found and found[1] in tools and _is_object(arguments := found[2] or "{}"):
                calls.append(_call(found[1], arguments, turn, len(calls)))
            if len(calls) == MAX_CALLS:
                break
    if not calls and not parameters.allow_text_output and parameters.output_tools:
        calls.append(_forced(parameters.output_tools[0], turn))
    elif not calls and choice == "required":
        calls.append(_forced(next(iter(tools.values())), turn))
    elif not calls and isinstance(choice, list):
        calls.extend([_forced(tools[name], turn) for name in choice[:1] if name in tools])
    return calls


def _forced(tool: ToolDefinition, turn: int) -> ToolCallPart:
    schema = tool.parameters_json_schema
    return _call(tool.name, _structured("", schema), turn, 0)


def _call(name: str, arguments: str, turn: int, index: int) -> ToolCallPart:
    digest = blake2b(f"{turn}\0{index}\0{name}\0{arguments}".encode("utf-8", "replace"), digest_size=12)
    return ToolCallPart(name, arguments, "call_" + digest.hexdigest())


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False


def _structured(text: str, schema: dict[str, Any]) -> str:
    """`text` when it is JSON that matches `schema`, or else the smallest JSON that does."""
    try:
        check_schema(schema)
    except Unprocessable:
        return "{}"
    try:
        if complaint(schema, orjson.loads(text)) is None:
            return text
    except orjson.JSONDecodeError:
        pass
    return orjson.dumps(smallest(schema)).decode()


def _cut(text: str, tokens: int) -> str:
    """The start of `text` that is `tokens` tokens long."""
    end = 0
    for count, piece in enumerate(_PIECE.finditer(text)):
        if count == tokens:
            break
        end = piece.end()
    return text[:end]
