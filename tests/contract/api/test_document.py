"""The OpenAPI document beyond single routes: its links, and how it tells of streams."""

from __future__ import annotations

import re

import pytest

from monitoring.objectives import WAITING

HELLO = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def operations(up):
    with up.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    return {operation["operationId"]: operation for methods in paths.values() for operation in methods.values()}


def test_links_name_operations_and_their_parameters(operations):
    links = [
        (target, link)
        for operation in operations.values()
        for answer in operation["responses"].values()
        for target, link in answer.get("links", {}).items()
    ]
    assert len(links) > 30
    for target, link in links:
        assert link["operationId"] == target
        known = {f"{parameter['in']}.{parameter['name']}" for parameter in operations[target].get("parameters", ())}
        assert set(link.get("parameters", ())) <= known
        assert link.get("requestBody") is None or "requestBody" in operations[target]


def test_a_run_is_linked_by_the_header_that_every_answer_has(operations, tenant):
    answer = tenant.http.post("/v1/chat/completions", json=HELLO)
    link = operations["create_chat_completion"]["responses"]["200"]["links"]["get_run"]
    assert link["parameters"] == {"path.run_id": "$response.header.X-Run-Id"}
    assert tenant.http.get(f"/v1/runs/{answer.headers['x-run-id']}").json()["status"] == "completed"


def test_the_latency_objective_counts_no_route_that_may_stream(up):
    with up.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    streaming = {
        path
        for path, methods in paths.items()
        for operation in methods.values()
        for answer in operation["responses"].values()
        if "text/event-stream" in answer.get("content", {})
    }
    assert "/v1/responses/{response_id}" in streaming
    assert {path for path in streaming if not re.fullmatch(WAITING, path)} == set()
    assert not re.fullmatch(WAITING, "/v1/runs/{run_id}")


def test_an_event_of_a_stream_is_not_said_to_be_a_string(operations):
    streams = [
        answer["content"]["text/event-stream"]
        for operation in operations.values()
        for answer in operation["responses"].values()
        if "text/event-stream" in answer.get("content", {})
    ]
    assert len(streams) == 5
    assert streams == [{}] * 5
