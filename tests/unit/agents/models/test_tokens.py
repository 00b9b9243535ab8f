"""Counting tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.messages import (
    BinaryContent,
    InstructionPart,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.tools import ToolDefinition

from kgents.agents.models.echo_answer import split_words
from kgents.agents.models.tokens import (
    ATTACHMENT_TOKENS,
    bound_request,
    count_messages,
    count_request,
    count_tokens,
)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("hello", 2),
        ("the cat", 2),
        ("Hello, world!", 6),
        ("a  b", 3),
        ("a\nb", 2),
        (" " * 17, 1),
        (" " * 33, 2),
        ("Donaudampfschiff", 4),
        ("日本語のテキスト", 2),
        ("👍👍", 2),
        ("1_000_000", 3),
    ],
)
def test_counts_pieces_signs_and_runs_of_space(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


@given(st.text())
def test_words_join_to_the_text_and_their_counts_add_up(text: str) -> None:
    words = split_words(text)
    assert "".join(words) == text
    assert sum(map(count_tokens, words)) == count_tokens(text)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_has_no_more_tokens_than_bytes(text: str) -> None:
    assert count_tokens(text) <= len(text.encode())


def test_every_kind_of_part_counts() -> None:
    messages: list[ModelMessage] = [
        ModelRequest(
            [SystemPromptPart("be kind"), UserPromptPart(["look", BinaryContent(b"x", media_type="image/png")])]
        ),
        ModelResponse([TextPart("well"), ToolCallPart("tool", '{"a":1}', "c")]),
        ModelRequest([ToolReturnPart("tool", "done", "c")]),
    ]
    assert count_messages(messages) == 2 + 1 + ATTACHMENT_TOKENS + 1 + (1 + 7) + (1 + 1)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5), st.text(max_size=50))
def test_the_bound_is_above_any_count(texts: list[str], instruction: str) -> None:
    messages: list[ModelMessage] = [ModelRequest([UserPromptPart(text)]) for text in texts]
    parameters = ModelRequestParameters(
        function_tools=[ToolDefinition(name="t", description=instruction)],
        instruction_parts=[InstructionPart(instruction)],
    )
    assert bound_request(messages, parameters) > count_request(messages, parameters)


def test_the_bound_counts_bytes_not_characters() -> None:
    messages: list[ModelMessage] = [ModelRequest([UserPromptPart("語" * 1000)])]
    assert bound_request(messages, ModelRequestParameters()) >= 3000
