"""What telemetry may cost: no time series for a tenant, and one line of the log for a request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import httpx2
import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from kgents.agents import service
from kgents.agents.model import AgentDefinition
from kgents.clock import SystemClock
from kgents.store.engine import Scope, open_store
from kgents.tenants import keys
from kgents.tenants.model import OWNER, SYSTEM
from kgents.tenants.service import KeyService, TenantService
from tests.support.up import Up
from tests.support.waiting import wait_until

TENANTS = 100_000
ACTIVE = 50
STREAM = {"stream": True}
MANY = """
WITH RECURSIVE counted(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM counted WHERE number < :many)
INSERT INTO tenants (tenant_id, name, status, created_at, updated_at)
SELECT 'ten_many_' || number, 'many-' || number, 'active', 0, 0 FROM counted
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("cost") / "data").start()
    yield running
    running.stop()


def add_tenants(up: Up) -> list[str]:
    """Have a hundred thousand tenants, of which fifty have an agent `echo` and a key; those keys."""
    clock = SystemClock()
    issue = KeyService(clock, keys.parse_peppers(json.loads((up.data / "secrets.json").read_text())["pepper"]))

    def unit(connection: Connection) -> list[str]:
        connection.execute(sa.text(MANY), {"many": TENANTS - ACTIVE})
        return [active(connection, number) for number in range(ACTIVE)]

    def active(connection: Connection, number: int) -> str:
        tenant = TenantService(clock).ensure(connection, f"active-{number}", SYSTEM).tenant_id
        service.create_agent(connection, tenant, "echo", AgentDefinition(model="kgents:echo"), clock.now())
        return issue.create(connection, tenant, name="k", role="owner", granting=OWNER, actor=SYSTEM).token

    async def write() -> list[str]:
        store = open_store(json.loads((up.data / "connections.json").read_text())["database_url"])
        try:
            return await store.write(Scope.system(), unit)
        finally:
            await store.close()

    return asyncio.run(write())


def series(up: Up) -> set[str]:
    """The names and labels of what each process exposes."""
    pages = [line for page in up.metrics() for line in page.splitlines()]
    return {line.rpartition(" ")[0] for line in pages if not line.startswith("#")}


def ask(up: Up, key: str, text: str = "hello") -> None:
    """A request of each of the kinds that make series: answered, failed, not found, and without a key."""
    with up.client(key) as client:
        for said in (text, "/fail 500"):
            client.post("/v1/chat/completions", json={"model": "echo", "messages": [{"role": "user", "content": said}]})
        client.get("/v1/agents")
        client.get(f"/v1/agents/{text}")
        client.get(f"/{text}", headers={"Authorization": "none"})


def test_a_hundred_thousand_tenants_add_no_time_series(up: Up) -> None:
    ask(up, up.key)
    up.settled()
    before = series(up)
    for number, key in enumerate(add_tenants(up)):
        ask(up, key, f"text-{number}")
    up.settled()
    assert series(up) - before == set()


def test_a_request_is_one_line_of_the_log(up: Up) -> None:
    paths = ["/v1/agents", "/v1/agents/none", "/v1/usage", "/health/saas", "/nowhere"]
    body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
    with up.client() as client:
        answers = [client.get(path) for path in paths]
        answers += [client.post("/v1/chat/completions", json=body | more) for more in ({}, STREAM, {"model": "none"})]
        answers.append(httpx2.get(f"{up.url}/v1/agents", trust_env=False))
    ids = [answer.headers["x-request-id"] for answer in answers]

    def logged() -> list[str]:
        lines = (up.data / "logs" / "api.jsonl").read_text().splitlines()
        found = [json.loads(line)["request_id"] for line in lines if '"request_id"' in line]
        return [each for each in found if each in ids]

    wait_until(lambda: set(logged()) == set(ids), what="each is logged")
    up.settled()
    assert sorted(logged()) == sorted(ids)


def test_a_request_makes_no_other_line(up: Up) -> None:
    def lines() -> int:
        """How many there are, but for those of who looks whether all is settled."""
        return sum('"route":"/health/saas"' not in line for line in up.logs().splitlines())

    with up.client() as client:
        client.get("/v1/agents")
        up.settled()
        before = lines()
        for _ in range(20):
            body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
            client.post("/v1/chat/completions", json=body).raise_for_status()
        up.settled()
    wait_until(lambda: lines() >= before + 20, what="they are logged")
    assert lines() == before + 20
