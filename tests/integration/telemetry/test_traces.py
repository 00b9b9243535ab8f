"""One trace from the gateway's header through the API, a run, its tools, SQL and the bus to the meter, across
processes, told by OTLP to a real receiver.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from kgents.telemetry import genai, messaging, traces
from tests.integration.system.test_durability import await_status
from tests.support.collector import Collector, Told, collecting
from tests.support.up import Up
from tests.support.waiting import wait_until

GATEWAY = "00f067aa0ba902b7"  # the span of whoever sent the request
STATE = "vendor=t61rcWkgMzE,other=00f067aa0ba902b7"
SUM = '/call calculator {"expression": "6 * 7"}'


def trace(number: int) -> str:
    return f"4bf92f3577b34da6a3ce929d0e0e{number:04x}"


def sampled(trace_id: str) -> dict[str, str]:
    return {"traceparent": f"00-{trace_id}-{GATEWAY}-01", "tracestate": STATE}


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest) -> dict[str, str]:
    """The settings of a kgents on each database."""
    if request.param == "sqlite":
        return {}
    server = request.getfixturevalue("postgres")
    found: dict[str, str] = server.environment(server.create_empty_database())
    return found


@pytest.fixture(scope="module")
def collector(database: dict[str, str]) -> Iterator[Collector]:
    """A receiver of its own for each database, since both have the same traces."""
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def up(database: dict[str, str], collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A kgents that records the traces that its callers record, and begins none."""
    environment = {
        **database,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0",
    }
    running = Up(tmp_path_factory.mktemp("traced") / "data", environment=environment).start()
    with running.client() as client:
        agent = {"name": "clerk", "model": "kgents:echo", "tools": [{"type": "builtin", "name": "calculator"}]}
        client.post("/v1/agents", json=agent).raise_for_status()
    yield running
    running.stop()


def chat(up: Up, agent: str, text: str, headers: dict[str, str], **more: Any) -> Any:
    body = {"model": agent, "messages": [{"role": "user", "content": text}], **more}
    with up.client() as client:
        return client.post("/v1/chat/completions", json=body, headers=headers)


def told(collector: Collector, trace_id: str, *names: str) -> list[Told]:
    """The spans of a trace, once those have come."""

    def come() -> list[Told] | None:
        found = collector.spans(trace_id)
        return found if {*names} <= {each.name for each in found} else None

    found: list[Told] = wait_until(come, seconds=20, what=f"{names} of {trace_id}")
    return found


@pytest.fixture(scope="module")
def in_background(up: Up, collector: Collector) -> list[Told]:
    """The trace of a run with a tool that a worker carried out."""
    with up.client() as client:
        session = client.post("/v1/sessions", json={"agent": "clerk"}).raise_for_status().json()["id"]
        body = {"input": SUM, "mode": "background"}
        run = client.post(f"/v1/sessions/{session}/runs", json=body, headers=sampled(trace(1))).raise_for_status()
        await_status(client, run.json()["id"], "completed")
    up.settled()
    return told(collector, trace(1), "invoke_agent", "process kgents.usage", "publish kgents.events")


def test_a_background_run_is_one_trace_from_the_gateway_to_the_meter(in_background: list[Told]) -> None:
    assert {(each.service, each.name) for each in in_background} == {
        ("kgents-api", "POST /v1/sessions/{session_id}/runs"),
        ("kgents-api", "read"),
        ("kgents-api", "admit run"),
        ("kgents-worker", "publish kgents.runs"),
        ("kgents-worker", "process kgents.runs"),
        ("kgents-worker", "claim run"),
        ("kgents-worker", "invoke_agent"),
        ("kgents-worker", "chat echo"),
        ("kgents-worker", "execute_tool calculator"),
        ("kgents-worker", "record step"),
        ("kgents-worker", "publish kgents.events"),
        ("kgents-worker", "publish kgents.usage"),
        ("kgents-worker", "process kgents.usage"),
    }


def test_every_span_of_a_trace_hangs_on_another_or_on_the_gateways(in_background: list[Told]) -> None:
    ids = {each.id for each in in_background}
    roots = [each.name for each in in_background if each.parent not in ids]
    assert roots == ["POST /v1/sessions/{session_id}/runs"]
    assert {each.parent for each in in_background} - ids == {GATEWAY}


def test_the_callers_tracestate_is_kept_across_processes(in_background: list[Told]) -> None:
    assert {each.span.trace_state for each in in_background if each.name == "chat echo"} == {STATE}


def test_a_run_that_the_api_carries_out_is_one_trace_too(up: Up, collector: Collector) -> None:
    assert chat(up, "clerk", SUM, sampled(trace(2))).status_code == 200
    found = told(collector, trace(2), "POST /v1/chat/completions", "process kgents.usage")
    assert {each.service for each in found if each.name in ("invoke_agent", "chat echo")} == {"kgents-api"}
    assert {each.service for each in found if each.name.endswith(" kgents.usage")} == {"kgents-worker"}
    assert {each.parent for each in found} - {each.id for each in found} == {GATEWAY}


def test_a_model_call_has_the_attributes_of_the_genai_conventions(in_background: list[Told]) -> None:
    call = next(each for each in in_background if each.name == "chat echo")
    assert call.attributes.items() >= {
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "kgents"),
        ("gen_ai.request.model", "echo"),
    }
    assert call.attributes["gen_ai.usage.input_tokens"] > 0
    assert call.attributes["gen_ai.response.finish_reasons"] == ["tool_call"]
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    used = {name for each in in_background for name in each.attributes if name.startswith("gen_ai.")}
    assert used <= known


def test_a_failure_is_told_by_its_kind_alone(up: Up, collector: Collector) -> None:
    assert chat(up, "echo", "/fail 500", sampled(trace(3))).status_code >= 500
    found = told(collector, trace(3), "POST /v1/chat/completions", "chat echo", "invoke_agent")
    failed = {each.name: each for each in found if each.span.status.code == 2}
    assert failed.keys() == {"POST /v1/chat/completions", "chat echo", "invoke_agent"}
    assert failed["chat echo"].attributes["error.type"] == failed["invoke_agent"].attributes["error.type"] != ""
    assert not any(each.span.status.message or each.span.events for each in found)


def test_nothing_that_was_said_or_kept_secret_is_in_a_span(up: Up, collector: Collector) -> None:
    word = "canary" * 3
    secret = f"kg_{'1' * 16}_{'Secret' * 5}"
    headers = sampled(trace(4)) | {"tracestate": f"vendor={secret}", "x-request-id": secret}
    chat(up, "clerk", f'/call calculator {{"expression": "{word}"}}', headers)
    chat(up, "clerk", f'/call {word} {{"a": "{word}"}}', headers)
    chat(up, "clerk", word, headers, stream=True, user=word)
    with up.client() as client:
        client.get(f"/v1/agents/{word}?{word}={word}", headers=headers)
        client.request("PURGE", f"/{word}", headers=headers)
        client.post("/v1/agents", content=f'{{"{word}', headers=headers)
    found = told(collector, trace(4), "_OTHER unmatched", "publish kgents.events")
    text = "".join(str(each.span) for each in found)
    assert not [each for each in (word, secret, up.key) if each in text]


def test_a_trace_that_nobody_records_is_left_to_the_sampler(up: Up, collector: Collector) -> None:
    unsampled = {"traceparent": f"00-{trace(5)}-{GATEWAY}-00"}
    assert chat(up, "echo", "hello", unsampled).status_code == 200
    assert chat(up, "echo", "hello", {}).status_code == 200
    assert chat(up, "echo", "hello", sampled(trace(6))).status_code == 200
    told(collector, trace(6), "POST /v1/chat/completions", "process kgents.usage")
    assert {each.span.trace_id.hex() for each in collector.spans()} <= {trace(number) for number in (1, 2, 3, 4, 6)}


@contextmanager
def recording(collector: Collector) -> Iterator[None]:
    """Have this process record traces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setattr(traces, "_tracing", None)
        traces.configure("kgents-test", instance="test", database="sqlite")
        yield
        traces.shutdown()


def test_a_batch_is_in_each_of_the_traces_that_it_tells_of(collector: Collector) -> None:
    contexts = [sampled(trace(number))["traceparent"] for number in (7, 8)]
    with recording(collector), messaging.process("kgents.usage", 2, contexts):
        pass
    parts = [*collector.spans(trace(7)), *collector.spans(trace(8))]
    assert [(each.name, each.parent) for each in parts] == [("process kgents.usage", GATEWAY)] * 2
    (batch,) = [each for each in collector.spans() if each.service == "kgents-test" and not each.parent]
    assert [link.trace_id.hex() for link in batch.span.links] == [trace(7), trace(8)]
    assert {link.span_id.hex() for each in parts for link in each.span.links} == {batch.id}


def test_a_tool_that_a_model_made_up_has_no_name(collector: Collector) -> None:
    with (
        recording(collector),
        traces.server_span("POST", sampled(trace(9))["traceparent"]),
        genai.tool_call("what the user said", "call_1", "unknown"),
    ):
        pass
    (call,) = [each for each in collector.spans(trace(9)) if each.name.startswith("execute_tool")]
    assert (call.name, call.attributes["gen_ai.tool.name"]) == ("execute_tool unknown", "unknown")
