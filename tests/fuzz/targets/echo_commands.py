"""What `kgents:echo` understands of a text: an answer within its limits, and words that add up to it."""

from __future__ import annotations

from pydantic_ai.messages import ModelRequest, UserPromptPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.tools import ToolDefinition

from kgents.agents.models.echo_answer import MAX_SLEEP, answer_to, split_words
from kgents.agents.models.tokens import count_tokens

LIMIT = 64
_TOOL = ToolDefinition(name="f", parameters_json_schema={"type": "object", "properties": {}})

SEEDS = [
    b"Hello, world!",
    b'/call f {}\n/call f {"a": 1}',
    b"/words 30",
    b"/sleep 0.5 /sleep .1 /fail 429",
    b"/fail",
    b"a  b\n\n c",
    "/words ٣٣".encode(),
]


def check(data: bytes) -> None:
    """A user's text."""
    text = data.decode("utf-8", "replace")
    words = split_words(text)
    assert "".join(words) == text
    assert sum(count_tokens(word) for word in words) == count_tokens(text)
    messages = [ModelRequest(parts=[UserPromptPart(text)])]
    answer = answer_to(messages, {"max_tokens": LIMIT}, ModelRequestParameters(function_tools=[_TOOL]))
    assert 0 <= answer.pause <= MAX_SLEEP
    assert answer.fail_with == 0 or 400 <= answer.fail_with < 600
    if answer.finish_reason != "tool_call":
        assert answer.output_tokens == sum(count_tokens(word) for word in answer.words()) <= LIMIT
