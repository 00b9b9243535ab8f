"""Responses requests: refused, or turned into a run's input and a model's history."""

from __future__ import annotations

import orjson
from pydantic import ValidationError

from kgents.agents.conversation import from_chat
from kgents.api.response_shapes import ResponsesRequest
from kgents.errors import InvalidRequest
from tests.fuzz.values import json_of

_WORDS = [
    *(
        "model",
        "input",
        "role",
        "content",
        "type",
        "message",
        "text",
        "input_text",
        "input_image",
        "image_url",
        "detail",
    ),
    *(
        "function_call",
        "function_call_output",
        "call_id",
        "name",
        "arguments",
        "output",
        "tools",
        "function",
        "parameters",
    ),
    *(
        "user",
        "assistant",
        "system",
        "developer",
        "instructions",
        "previous_response_id",
        "stream",
        "background",
        "store",
    ),
    *(
        "tool_choice",
        "required",
        "format",
        "json_schema",
        "schema",
        "max_output_tokens",
        "https://a.example/b",
        "{}",
        "c1",
    ),
]
_ITEMS = [
    {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "1"},
]

SEEDS = [
    orjson.dumps({"model": "echo", "input": "Hello"}),
    orjson.dumps({"model": "echo", "input": _ITEMS, "instructions": "Be brief.", "max_output_tokens": 5}),
    orjson.dumps({"input": "x", "previous_response_id": "resp_1", "text": {"format": {"type": "json_object"}}}),
    b"\x05\x09" + bytes(range(64)),
]


def check(data: bytes) -> None:
    """A body, by the way that the route takes it."""
    try:
        asked = ResponsesRequest.model_validate(json_of(data, _WORDS))
        messages = asked.messages()
        asked.overrides()
        from_chat(messages)
    except (ValidationError, InvalidRequest):
        return
    assert messages
