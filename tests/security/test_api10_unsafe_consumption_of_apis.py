"""API10:2023. What providers, tool servers and pages answer is no more trusted than what a client sends.

tests/contract/api/test_provider_faults.py has a provider fail in every way; tests/integration/egress has servers that
send bombs, endless bodies and broken protocols to tools.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.refusals import refused
from tests.support.tenants import Tenant
from tests.support.up import Up
from tests.support.upstream import SECRET_IN_ANSWERS, Upstream

MB = 1_000_000
HUGE = 2**53


def peak(up: Up) -> int:
    """The most memory that the API's process has held, in bytes."""
    status = Path(f"/proc/{up.pid('api')}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


def ask(tenant: Tenant, model: str, text: str = "hello") -> dict[str, object]:
    agent = tenant.agent(model=model, limits={"max_steps": 3})["id"]
    return tenant.run(text, agent=agent)


def test_a_bomb_of_a_provider_is_not_unpacked(up: Up, tenant: Tenant) -> None:
    before, began = peak(up), time.monotonic()
    run = ask(tenant, "up:bomb")
    assert run["status"] == "failed"
    assert peak(up) - before < 80 * MB  # the whole would be 200
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("model", ["up:claims-less", "up:claims-more"])
def test_a_usage_that_can_not_be_is_not_metered(tenant: Tenant, model: str) -> None:
    run = ask(tenant, model)
    used = tenant.ended(str(run["id"]))["usage"]
    for meter, amount in {**used, **tenant.balance()}.items():
        assert isinstance(amount, int), meter
        assert 0 <= amount < HUGE, meter
    tenant.check_nothing_is_left_over()


def test_a_provider_does_not_send_the_operators_key_elsewhere(up: Up, tenant: Tenant, upstream: Upstream) -> None:
    before = len(upstream.requests)
    assert ask(tenant, "up:redirect")["status"] == "failed"
    assert len(upstream.requests) == before + 1
    assert "sk-of-the-operator" not in up.logs_until_now()


@pytest.mark.parametrize("model", ["up:401", "up:500", "up:400"])
def test_what_a_provider_quotes_is_not_passed_on(up: Up, tenant: Tenant, model: str) -> None:
    body = {"model": tenant.agent(model=model)["name"], "input": "hello"}
    answer = tenant.http.post("/v1/responses", json=body)
    refused(answer, 502)
    assert SECRET_IN_ANSWERS not in answer.text
    assert SECRET_IN_ANSWERS not in up.logs_until_now()


@pytest.mark.parametrize(
    "order",
    [
        'CALL no_such_tool {"a": 1}',
        'CALL calculator {"expression": ["not", "a", "text"]}',
        'CALL calculator {"expression": "1", "more": "fields"}',
        "CALL calculator {not json}",
        "CALL calculator {\"expression\": \"__import__('os').system('id')\"}",
        'CALL calculator {"expression": "9**9**9**9"}',
        "CALL " + "x" * 5000 + " {}",
    ],
)
def test_a_call_that_can_not_be_is_told_to_the_model_and_ends_nothing(tenant: Tenant, order: str) -> None:
    began = time.monotonic()
    agent = tenant.agent(model="up:obeys", tools=[{"type": "builtin", "name": "calculator"}])["id"]
    run = tenant.ended(tenant.run(order, agent=agent)["id"])
    assert run["status"] in ("completed", "failed")
    assert "uid=" not in str(run)
    assert time.monotonic() - began < 15
    assert tenant.http.get("/v1/agents").status_code == 200
    tenant.check_nothing_is_left_over()
