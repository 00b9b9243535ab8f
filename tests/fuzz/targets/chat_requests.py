"""Chat completion requests: refused, or turned into a run's input, a model's history and back."""

from __future__ import annotations

import orjson
from pydantic import ValidationError

from kgents.agents.conversation import dump_message, from_chat, load_message, public_messages
from kgents.api.openai_input import refuse_unsupported
from kgents.api.routes.chat import ChatRequest
from kgents.errors import InvalidRequest
from tests.fuzz.values import json_of

_WORDS = [
    *(
        "model",
        "messages",
        "role",
        "content",
        "tool_calls",
        "tool_call_id",
        "id",
        "type",
        "function",
        "name",
        "arguments",
    ),
    *(
        "user",
        "assistant",
        "system",
        "developer",
        "tool",
        "text",
        "image_url",
        "url",
        "data:image/png;base64,AAAA",
        "echo",
    ),
    *(
        "tools",
        "parameters",
        "tool_choice",
        "auto",
        "response_format",
        "json_schema",
        "schema",
        "max_tokens",
        "stop",
        "n",
    ),
    *(
        "temperature",
        "seed",
        "stream",
        "stream_options",
        "include_usage",
        "object",
        "{}",
        "strict",
        "https://a.example/b",
    ),
]
_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
_NO_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,A\u00fdA"}}
_MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hi"}, _IMAGE]},
    {"role": "assistant", "content": None, "tool_calls": [_CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "1"},
]

SEEDS = [
    orjson.dumps({"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}),
    orjson.dumps({"model": "echo", "messages": _MESSAGES, "stop": ["a"], "seed": 1, "temperature": 1}),
    orjson.dumps(
        {
            "model": "echo",
            "messages": _MESSAGES[:1],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        }
    ),
    orjson.dumps({"model": "echo", "messages": [{"role": "user", "content": [_NO_IMAGE]}]}),
    b"\x05\x09" + bytes(range(64)),
]


def check(data: bytes) -> None:
    """A body, by the way that the route takes it."""
    try:
        asked = ChatRequest.model_validate(json_of(data, _WORDS))
        refuse_unsupported(asked.messages)
        history = from_chat([message.plain() for message in asked.messages])
    except (ValidationError, InvalidRequest):
        return
    asked.overrides()
    for message in history:
        again = load_message(dump_message(message))
        assert public_messages(again) == public_messages(message)
