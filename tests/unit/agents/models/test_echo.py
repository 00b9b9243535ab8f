"""`kgents:echo`: what it answers, how it streams, what it counts."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import orjson
import pytest
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import (
    ImageUrl,
    InstructionPart,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from kgents.agents.models.echo import EchoModel, worst_case
from kgents.agents.models.tokens import count_request, count_tokens

CALCULATOR = ToolDefinition(
    name="calculator",
    description="Works out a sum.",
    parameters_json_schema={
        "type": "object",
        "properties": {"expression": {"type": "string"}},
        "required": ["expression"],
    },
)
WITH_TOOL = ModelRequestParameters(function_tools=[CALCULATOR])
CITY = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "people": {"type": "integer", "minimum": 10}},
    "required": ["name", "people"],
    "additionalProperties": False,
}


def said(*texts: str) -> list[ModelMessage]:
    return [ModelRequest(parts=[UserPromptPart(text)]) for text in texts]


async def ask(
    text: str, settings: ModelSettings | None = None, parameters: ModelRequestParameters | None = None
) -> ModelResponse:
    return await EchoModel().request(said(text), settings, parameters or ModelRequestParameters())


async def streamed(
    text: str, settings: ModelSettings | None = None, parameters: ModelRequestParameters | None = None
) -> tuple[list[str], ModelResponse]:
    """The pieces of text of a streamed answer, and the response at its end."""
    pieces: list[str] = []
    async with EchoModel().request_stream(said(text), settings, parameters or ModelRequestParameters()) as stream:
        async for event in stream:
            if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                pieces.append(event.part.content)
            elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                pieces.append(event.delta.content_delta)
        return pieces, stream.get()


def text_of(response: ModelResponse) -> str:
    return "".join(part.content for part in response.parts if isinstance(part, TextPart))


def output(schema: dict[str, object]) -> ModelRequestParameters:
    return ModelRequestParameters(output_mode="native", output_object=OutputObjectDefinition(json_schema=schema))


async def test_answers_with_the_last_user_text() -> None:
    history = [*said("first"), ModelResponse([TextPart("first")]), *said("Grüße, Welt!")]
    response = await EchoModel().request(history, None, ModelRequestParameters())
    assert text_of(response) == "Grüße, Welt!"
    assert response.finish_reason == "stop"


async def test_answers_nothing_to_nothing() -> None:
    pieces, response = await streamed("")
    assert (pieces, text_of(response), response.usage.output_tokens) == ([""], "", 0)


async def test_shows_an_image_as_a_word() -> None:
    history: list[ModelMessage] = [ModelRequest([UserPromptPart(["look:", ImageUrl("https://example.com/a.png")])])]
    response = await EchoModel().request(history, None, ModelRequestParameters())
    assert text_of(response) == "look: [image-url]"


async def test_is_a_model_that_an_agent_can_run() -> None:
    result = await Agent(EchoModel()).run("hello there")
    assert isinstance(EchoModel(), Model)
    assert result.output == "hello there"


async def test_streams_through_an_agent() -> None:
    async with Agent(EchoModel()).run_stream("one two three") as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
        assert pieces == ["one ", "two ", "three"]
        assert result.usage.output_tokens == count_tokens("one two three")


async def test_an_agents_tool_and_output_type_work() -> None:
    class City(BaseModel):
        name: str
        people: int

    agent = Agent(EchoModel(), output_type=City)
    called: list[int] = []

    @agent.tool_plain
    def double(number: int) -> str:
        called.append(number)
        return f'{{"name": "Bern", "people": {number * 2}}}'

    result = await agent.run('/call double {"number": 21}')
    assert called == [21]
    assert result.output == City(name="Bern", people=42)


async def test_streams_each_word_with_its_whitespace() -> None:
    pieces, _ = await streamed("  Hello,\n\n big   world \n")
    assert pieces == ["  Hello,\n\n ", "big   ", "world \n"]


async def test_a_stream_ends_with_the_same_response_as_a_request() -> None:
    _, response = await streamed("the quick brown fox", {"max_tokens": 5})
    whole = await ask("the quick brown fox", {"max_tokens": 5})
    assert (response.parts, response.usage, response.finish_reason) == (whole.parts, whole.usage, whole.finish_reason)


async def test_a_streams_events_are_those_of_any_model() -> None:
    async with EchoModel().request_stream(said("a b"), None, ModelRequestParameters()) as stream:
        events = [event async for event in stream]
    assert [event.event_kind for event in events] == ["part_start", "final_result", "part_delta", "part_end"]
    assert isinstance(events[-1], PartEndEvent)
    assert events[-1].part == TextPart("a b")


async def test_a_stream_that_is_left_has_the_usage_of_what_was_said() -> None:
    async with EchoModel().request_stream(said("one two three four"), None, ModelRequestParameters()) as stream:
        async for event in stream:
            if isinstance(event, PartDeltaEvent):
                break
        response = stream.get()
    assert text_of(response) == "one two "
    assert response.usage.output_tokens == count_tokens("one two ")
    assert response.state == "incomplete"


async def test_a_cancelled_stream_says_no_more() -> None:
    async with EchoModel().request_stream(said("one two three"), None, ModelRequestParameters()) as stream:
        async for _ in stream:
            await stream.cancel()
        assert text_of(stream.get()) == "one "
        assert stream.get().state == "interrupted"


async def test_a_stream_can_be_taken_up_again() -> None:
    async with EchoModel().request_stream(said("one two three"), None, ModelRequestParameters()) as stream:
        async for event in stream:
            if isinstance(event, PartStartEvent):
                break
        rest = [event.delta.content_delta async for event in stream if isinstance(event, PartDeltaEvent)]  # type: ignore[union-attr]
    assert rest == ["two ", "three"]


@pytest.mark.parametrize(
    ("limit", "text", "finish"),
    [(1, "one", "length"), (2, "one two", "length"), (4, "one two, five", "length"), (5, "one two, fives", "stop")],
)
async def test_max_tokens_cuts_the_answer(limit: int, text: str, finish: str) -> None:
    response = await ask("one two, fives", {"max_tokens": limit})
    assert (text_of(response), response.finish_reason) == (text, finish)
    assert response.usage.output_tokens == min(limit, 5)


async def test_a_stop_sequence_ends_the_answer() -> None:
    response = await ask("one, two; three", {"stop_sequences": [";", "three"]})
    assert (text_of(response), response.finish_reason) == ("one, two", "stop")


async def test_usage_counts_instructions_and_tools() -> None:
    parameters = ModelRequestParameters(
        function_tools=[CALCULATOR], instruction_parts=[InstructionPart("Answer briefly.")]
    )
    response = await ask("hello", None, parameters)
    schema = orjson.dumps(CALCULATOR.parameters_json_schema).decode()
    expected = sum(map(count_tokens, ["hello", "Answer briefly.", "calculator", "Works out a sum.", schema]))
    assert response.usage.input_tokens == expected


async def test_calls_a_tool() -> None:
    response = await ask('/call calculator {"expression": "1+1"}', None, WITH_TOOL)
    (call,) = response.parts
    assert isinstance(call, ToolCallPart)
    assert (call.tool_name, call.args_as_dict()) == ("calculator", {"expression": "1+1"})
    assert response.finish_reason == "tool_call"
    assert response.usage.output_tokens == count_tokens("calculator") + count_tokens('{"expression": "1+1"}')


async def test_several_lines_are_several_calls_with_different_ids() -> None:
    line = '/call calculator {"expression": "1+1"}'
    response = await ask(f"{line}\n{line}", None, WITH_TOOL)
    calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
    assert len({call.tool_call_id for call in calls}) == 2


async def test_calls_stream_whole() -> None:
    _, response = await streamed('/call calculator {"expression": "1+1"}', None, WITH_TOOL)
    assert response.parts == (await ask('/call calculator {"expression": "1+1"}', None, WITH_TOOL)).parts
    assert response.usage.output_tokens > 0


@pytest.mark.parametrize("text", ["/call other {}", "/call calculator {broken", "/call calculator [1]", "/call"])
async def test_what_is_no_call_is_echoed(text: str) -> None:
    response = await ask(text, None, WITH_TOOL)
    assert text_of(response) == text


async def test_tool_choice_none_calls_nothing() -> None:
    response = await ask("/call calculator {}", {"tool_choice": "none"}, WITH_TOOL)
    assert text_of(response) == "/call calculator {}"


@pytest.mark.parametrize("choice", ["required", ["calculator"]])
async def test_a_required_tool_is_called_with_the_smallest_arguments(choice: Any) -> None:
    response = await ask("hello", {"tool_choice": choice}, WITH_TOOL)
    (call,) = response.parts
    assert isinstance(call, ToolCallPart)
    assert call.args_as_dict() == {"expression": ""}


async def test_answers_with_the_results_of_tools() -> None:
    history = [
        *said("/call calculator {}"),
        ModelResponse([ToolCallPart("calculator", {}, "a"), ToolCallPart("calculator", {}, "b")]),
        ModelRequest([ToolReturnPart("calculator", "4", "a"), ToolReturnPart("calculator", {"n": 5}, "b")]),
    ]
    response = await EchoModel().request(history, {"tool_choice": "required"}, WITH_TOOL)
    assert text_of(response) == '4\n{"n":5}'


async def test_the_same_request_gives_the_same_answer() -> None:
    text = '/call calculator {"expression": "1+1"}'
    first, second = await ask(text, None, WITH_TOOL), await ask(text, None, WITH_TOOL)
    assert first.parts == second.parts
    assert first.usage == second.usage


async def test_a_schema_is_answered_with_its_smallest_value() -> None:
    response = await ask("hello", None, output(CITY))
    assert orjson.loads(text_of(response)) == {"name": "x", "people": 10}


async def test_json_that_matches_the_schema_is_echoed() -> None:
    text = '{"name": "Zürich",  "people": 400000}'
    assert text_of(await ask(text, None, output(CITY))) == text


@pytest.mark.parametrize("text", ['{"name": "Zürich"}', '{"name": "", "people": 11}', "[1]", "{"])
async def test_json_that_does_not_match_the_schema_is_not_echoed(text: str) -> None:
    assert orjson.loads(text_of(await ask(text, None, output(CITY)))) == {"name": "x", "people": 10}


async def test_words_makes_words_of_one_token() -> None:
    response = await ask("/words 1234")
    assert len(text_of(response).split()) == response.usage.output_tokens == 1234


async def test_fail_raises_as_a_provider_does() -> None:
    with pytest.raises(ModelHTTPError) as raised:
        await ask("/fail")
    assert raised.value.status_code == 500


async def test_fail_in_a_stream_takes_a_status() -> None:
    with pytest.raises(ModelHTTPError) as raised:
        await streamed("/fail 429")
    assert raised.value.status_code == 429


async def test_sleep_waits_between_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("kgents.agents.models.echo.sleep", note)
    pieces, _ = await streamed("/sleep 0.25 one two three")
    assert (pieces, waits) == (["one ", "two ", "three"], [0.25, 0.25])


async def test_of_many_sleeps_the_last_counts_and_they_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("kgents.agents.models.echo.sleep", note)
    started = time.thread_time()
    response = await ask("/sleep 9 " * 100_000 + "/sleep 0.25 one")
    assert time.thread_time() - started < 1
    assert (text_of(response), pauses) == ("one", [0.25])


async def test_sleep_takes_a_command_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("kgents.agents.models.echo.sleep", note)
    response = await ask("/sleep 999999 /words 2")
    assert (text_of(response), waits) == ("w0 w1", [30.0, 30.0])


async def test_a_long_stream_lets_other_tasks_run() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await streamed("/words 160")
    task.cancel()
    assert turns >= 9


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("hello, world", ModelRequestParameters()),
        ("/words 50", ModelRequestParameters()),
        ('/call calculator {"expression": "1+1"}', WITH_TOOL),
        ("anything", output(CITY)),
        ("/fail", ModelRequestParameters()),
    ],
)
async def test_the_worst_case_is_not_exceeded(text: str, parameters: ModelRequestParameters) -> None:
    settings: ModelSettings = {"max_tokens": 20}
    tokens_in, tokens_out = worst_case(said(text), settings, parameters)
    assert tokens_in == count_request(said(text), parameters)
    try:
        usage = (await ask(text, settings, parameters)).usage
    except ModelHTTPError:
        return
    assert usage.input_tokens == tokens_in
    assert usage.output_tokens <= tokens_out <= 20


async def test_the_worst_case_holds_before_the_tools_are_known() -> None:
    text = '/call calculator {"expression": "1+1"}'
    _, most = worst_case(said(text), None, ModelRequestParameters())
    assert (await ask(text, None, WITH_TOOL)).usage.output_tokens <= most


def test_a_request_is_cheap() -> None:
    """Its calls are counted: they don't depend on the machine. They are 36 here."""
    model, history, parameters = EchoModel(), said("Say hello to the world, please"), ModelRequestParameters()
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    request = model.request(history, None, parameters)
    sys.setprofile(count)
    try:
        request.send(None)
    except StopIteration:
        pass
    finally:
        sys.setprofile(None)
    assert 0 < calls < 100
