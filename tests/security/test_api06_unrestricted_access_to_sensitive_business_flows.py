"""API6:2023. The flows that cost money or give power: runs of a model, and keys. Automating them gains nothing.

tests/faults/test_quotas.py races quotas over several processes, tests/faults/test_idempotency.py retries.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from tests.faults.test_quotas import ask, reserved, set_limit
from tests.support.refusals import refused
from tests.support.tenants import Tenant
from tests.support.up import Up
from tests.support.waiting import wait_until

ASKING, ROOM = 30, 7
SLOW = "/sleep 1 " + "word " * 6  # longer than it takes all of them to ask


def test_asking_at_once_buys_no_more_runs_than_asking_in_turn(tenant: Tenant) -> None:
    each = reserved(tenant)
    set_limit(tenant, "output_tokens", tenant.balance()["output_tokens"] + each * ROOM)
    answers = asyncio.run(ask([tenant.up.url], tenant.key, ASKING, SLOW))
    assert answers == Counter({402: ASKING - ROOM, 200: ROOM})
    tenant.check_nothing_is_left_over()


def test_going_away_does_not_make_a_run_free(tenant: Tenant) -> None:
    body = {"model": "echo", "input": "/sleep 0.1 one two three four", "stream": True}
    with tenant.http.stream("POST", "/v1/responses", json=body) as answer:
        next(answer.iter_lines())
    (run,) = tenant.http.get("/v1/runs").json()["data"]
    assert tenant.ended(run["id"])["usage"]["input_tokens"] > 0
    assert tenant.balance()["input_tokens"] > 0


def test_a_limit_that_the_caller_sets_is_not_over_the_agents(tenant: Tenant) -> None:
    tenant.agent(name="short", limits={"max_output_tokens": 5})
    for body in ({"max_tokens": 5000}, {"max_completion_tokens": 5000}):
        message = {"role": "user", "content": "/words 1000"}
        answer = tenant.http.post("/v1/chat/completions", json={"model": "short", "messages": [message], **body})
        if answer.is_success:
            assert answer.json()["usage"]["completion_tokens"] <= 5
        else:
            refused(answer, answer.status_code)


def test_a_key_makes_no_key_that_outdoes_it(tenant: Tenant) -> None:
    with tenant.client(scopes=["keys:write", "runs:read"]) as http:
        made = http.post("/v1/api-keys", json={"name": "child", "scopes": ["keys:write"]})
        assert made.status_code == 201
        with tenant.up.client(made.json()["token"]) as child:
            refused(child.post("/v1/api-keys", json={"name": "k", "scopes": ["runs:read"]}), 403)
            refused(child.post("/v1/api-keys", json={"name": "k", "role": "owner"}), 403)


def test_a_suspended_tenant_runs_nothing_more(up: Up, new_tenant: Callable[..., Tenant]) -> None:
    tenant = new_tenant()
    assert tenant.run("hello")["status"] == "completed"
    with up.admin() as admin:
        admin.patch(f"/v1/tenants/{tenant.id}", json={"status": "suspended"}).raise_for_status()
    body = {"model": "echo", "input": "hello"}
    wait_until(
        lambda: tenant.http.post("/v1/responses", json=body).status_code == 401,
        seconds=5,
        what="the tenant's keys have stopped",
    )
    refused(tenant.http.post("/v1/api-keys", json={"name": "k", "role": "viewer"}), 401, "tenant-suspended")
