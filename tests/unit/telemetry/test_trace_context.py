"""W3C trace context: what is taken, kept with a run, carried by messages, and kept from the meter."""

from __future__ import annotations

import orjson
import pytest

from kgents.telemetry import trace_context
from kgents.usage.ledger import outbox_row
from kgents.usage.model import UsageEvent

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-4bf92f3577b34da6a3ce929d0e0e4737-00f067aa0ba902b7-01"


def payload(context: str | None) -> bytes:
    event = UsageEvent("run_1:0:runs", "ten_1", "runs", 1, "run_1", "agt_1", "kgents:echo", False, 0)
    return outbox_row([event], source="kgents", now=0, context=context).payload.encode()


@pytest.mark.parametrize(
    ("state", "kept"), [("vendor=1", "vendor=1"), ("a@b=x,c=y/z", "a@b=x,c=y/z"), ("a=1,, b=2", "a=1,b=2")]
)
def test_a_tracestate_is_kept_with_its_traceparent(state: str, kept: str) -> None:
    joined = trace_context.join(PARENT, state)
    assert trace_context.headers(joined) == {"traceparent": PARENT, "tracestate": kept}


@pytest.mark.parametrize(
    "state",
    ["", "vendor", "=1", "Vendor=1", "v=\n", 'v="', "v=\\", "v=" + "x" * 600, f"v=kg_{'1' * 16}_{'Secret' * 5}"],
)
def test_a_tracestate_that_can_not_be_passed_on_is_left_out(state: str) -> None:
    assert trace_context.join(PARENT, state) == PARENT


def test_without_a_valid_traceparent_there_is_no_context() -> None:
    assert trace_context.join("00-abc", "vendor=1") is None


def test_messages_carry_contexts() -> None:
    together = b"[" + payload(f"{PARENT} vendor=1")[1:-1] + b"," + payload(OTHER)[1:-1] + b"]"
    assert trace_context.contexts_in(together) == [f"{PARENT} vendor=1", OTHER]
    assert orjson.loads(together)[0]["tracestate"] == "vendor=1"


def test_the_meter_is_handed_the_same_events_traced_or_not() -> None:
    assert trace_context.without_contexts(payload(f"{PARENT} vendor=1")) == payload(None)


def test_a_text_that_looks_like_a_context_is_left_alone() -> None:
    text = orjson.dumps({"a": "b", "said": f',"traceparent":"{PARENT}"'})
    assert trace_context.without_contexts(text) == text
    assert trace_context.contexts_in(text) == []
