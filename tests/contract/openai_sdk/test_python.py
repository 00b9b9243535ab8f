"""The official `openai` Python SDK, unmodified, against a running kgents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import uuid4

import httpx2
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.support.up import Up

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def client(up: Up) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{up.url}/v1", api_key=up.key, max_retries=0) as client:
        yield client


def test_models_are_the_tenants_agents(client: OpenAI) -> None:
    assert "echo" in [model.id for model in client.models.list()]
    assert client.models.retrieve("echo").id == "echo"


def test_a_completion_carries_text_and_usage(client: OpenAI) -> None:
    completion = client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "one two three"}])
    assert completion.choices[0].message.content == "one two three"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens > 0


def test_max_tokens_cut_the_answer(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": "one two six ten"}], max_completion_tokens=2
    )
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 2


def test_a_stream_joins_to_the_answer_and_ends_with_usage(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="echo",
        messages=[{"role": "user", "content": "word by word it comes"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == "word by word it comes"
    assert len([text for text in texts if text]) > 3
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


def test_the_callers_tools_are_passed_through_and_their_results_come_back(client: OpenAI) -> None:
    messages: list[dict[str, object]] = [{"role": "user", "content": '/call weather {"city": "Bonn"}'}]
    first = client.chat.completions.create(model="echo", messages=messages, tools=[WEATHER])  # type: ignore[call-overload]
    call = first.choices[0].message.tool_calls[0]
    assert first.choices[0].finish_reason == "tool_calls"
    assert json.loads(call.function.arguments) == {"city": "Bonn"}
    messages += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    second = client.chat.completions.create(model="echo", messages=messages, tools=[WEATHER])  # type: ignore[call-overload]
    assert "sunny" in second.choices[0].message.content


def test_a_streamed_tool_call_is_whole(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="echo",
        messages=[{"role": "user", "content": '/call weather {"city": "Bonn"}'}],
        tools=[WEATHER],  # type: ignore[list-item]
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls is not None
    assert json.loads(final.choices[0].message.tool_calls[0].function.arguments) == {"city": "Bonn"}


class City(BaseModel):
    name: str
    people: int


def test_structured_output_is_parsed(client: OpenAI) -> None:
    completion = client.chat.completions.parse(
        model="echo", messages=[{"role": "user", "content": '{"name": "Bonn", "people": 330000}'}], response_format=City
    )
    assert completion.choices[0].message.parsed == City(name="Bonn", people=330000)


def test_a_response_is_followed_on(client: OpenAI) -> None:
    first = client.responses.create(model="echo", input="remember the milk")
    assert first.output_text == "remember the milk"
    second = client.responses.create(model="echo", input="and now?", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens


def test_a_response_streams_its_events_in_order(client: OpenAI) -> None:
    events = list(client.responses.create(model="echo", input="a b c d", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "a b c d"
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "a b c d"


def test_a_background_response_is_polled_to_its_end(client: OpenAI) -> None:
    response = client.responses.create(model="echo", input="in the background", background=True)
    for _ in range(400):
        if response.status not in ("queued", "in_progress"):
            break
        response = client.responses.retrieve(response.id)
    assert response.status == "completed"
    assert response.output_text == "in the background"


def test_a_response_calls_the_callers_function(client: OpenAI) -> None:
    tool = {"type": "function", "strict": False, **WEATHER["function"]}  # type: ignore[dict-item]
    first = client.responses.create(model="echo", input='/call weather {"city": "Bonn"}', tools=[tool])  # type: ignore[list-item]
    call = next(item for item in first.output if item.type == "function_call")
    second = client.responses.create(
        model="echo",
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}],
        tools=[tool],  # type: ignore[list-item]
    )
    assert "sunny" in second.output_text


def test_a_deleted_response_is_gone(client: OpenAI) -> None:
    response = client.responses.create(model="echo", input="short-lived")
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


def test_a_wrong_key_is_an_authentication_error(up: Up) -> None:
    client = OpenAI(base_url=f"{up.url}/v1", api_key="kg_wrong", max_retries=0)
    with client, pytest.raises(openai.AuthenticationError) as caught:
        client.models.list()
    assert caught.value.code == "invalid_api_key"


def test_an_unknown_model_is_a_not_found_error(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no agent"):
        client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "hi"}])


def test_an_unknown_field_is_named(client: OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="temprature"):
        client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "hi"}], extra_body={"temprature": 1}
        )


def test_over_quota_is_insufficient_quota(up: Up) -> None:
    key = tenant_with(up, quotas={"runs": 1})
    with OpenAI(base_url=f"{up.url}/v1", api_key=key, max_retries=0) as client:
        client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "one"}])
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "two"}])
    assert caught.value.status_code == 402
    assert caught.value.code == "insufficient_quota"


def test_over_rate_is_a_rate_limit_error_that_says_when_to_retry(up: Up) -> None:
    key = tenant_with(up, requests_per_minute=2)
    with OpenAI(base_url=f"{up.url}/v1", api_key=key, max_retries=0) as client:
        client.models.list()
        with pytest.raises(openai.RateLimitError) as caught:
            client.models.list()
    assert int(caught.value.response.headers["retry-after"]) >= 1


def test_a_failing_model_is_an_error_with_its_reason(client: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "/fail"}])
    assert caught.value.status_code == 502


def test_a_stream_of_a_failing_model_raises(client: OpenAI) -> None:
    stream = client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "/fail"}], stream=True)
    with pytest.raises(openai.APIError):
        list(stream)


def tenant_with(up: Up, **limits: object) -> str:
    """The key of a new tenant with an agent `echo`."""
    admin: httpx2.Client
    with up.admin() as admin:
        tenant = admin.post("/v1/tenants", json={"name": uuid4().hex, **limits}).raise_for_status().json()
        path = f"/v1/tenants/{tenant['id']}"
        key = admin.post(f"{path}/api-keys", json={"name": "k", "role": "owner"}).raise_for_status().json()["token"]
        with up.client(key) as mine:
            mine.post("/v1/agents", json={"name": "echo", "model": "kgents:echo"}).raise_for_status()
    return str(key)
