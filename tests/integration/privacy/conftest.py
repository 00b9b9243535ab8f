"""Tenants with canaries in all that they may fill, in a database and a bus of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from nats.aio.client import Client
from pydantic import SecretStr
from sqlalchemy import Connection

from kgents.bus.admin import connected
from kgents.bus.nats import Bus
from kgents.clock import SystemClock
from kgents.config import Settings
from kgents.ids import new_id
from kgents.privacy.service import Erasure
from kgents.store.engine import Scope, Store, open_store
from kgents.store.tables import METERS, metadata
from tests.integration.conftest import Database
from tests.support.nats import NatsServer
from tests.support.waiting import eventually

CANARY = "canary-of-"
SETTLE = 0.05

Rows = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class World:
    """The database as its owner, and the bus."""

    store: Store
    bus: Client
    publisher: Bus

    def erasure(self, store: Store | None = None) -> Erasure:
        """An erasure whose waits are short."""
        return Erasure(
            store or self.store,
            self.bus,
            SystemClock(),
            source="kgents",
            operator="tester",
            compact=lambda: True,
            tell=lambda text: None,
            settle=SETTLE,
        )

    async def rows(self) -> Rows:
        """Every row of every table."""

        def read(connection: Connection) -> Rows:
            return {
                table.name: [dict(row) for row in connection.execute(sa.select(table)).mappings()]
                for table in metadata.sorted_tables
            }

        return await self.store.read(Scope.system(), read)

    async def go_back_to(self, rows: Rows) -> None:
        """Have the database as it was, as a restore of a backup does."""

        def write(connection: Connection) -> None:
            for table in reversed(metadata.sorted_tables):
                connection.execute(sa.delete(table))
            for table in metadata.sorted_tables:
                for row in rows[table.name]:
                    connection.execute(sa.insert(table), row)

        await self.store.write(Scope.system(), write)

    async def plant(self, name: str) -> str:
        """A tenant whose every text has `canary-of-<name>` in it; its id."""
        tenant = new_id("ten")
        rows = _rows(tenant, CANARY + name)
        await self.store.write(
            Scope.system(),
            lambda c: [c.execute(sa.insert(metadata.tables[table]), row) for table, row in rows],
        )
        run = next(row["run_id"] for table, row in rows if table == "runs")
        await self.say(run, CANARY + name)
        return tenant

    async def say(self, run: str, text: str) -> None:
        """An event of a run on the bus."""
        payload = f'[{{"sequence":1,"type":"text.delta","data":{{"text":"{text}"}}}}]'
        await self.publisher.publish(f"kgents.events.{run}", payload.encode())


@pytest.fixture
async def world(database: Database, nats: NatsServer) -> AsyncIterator[World]:
    """A database and a bus without tenants."""
    settings = Settings(nats_url=nats.url, nats_user=nats.user, nats_password=SecretStr(nats.password))
    publisher = Bus(settings, SystemClock())
    await publisher.start()
    await eventually(lambda: publisher.state.connected, what="the bus is connected")
    store = open_store(database.owner_url)
    async with connected(settings) as bus:
        yield World(store, bus, publisher)
    await store.close()
    await publisher.close()


def _rows(tenant: str, text: str) -> list[tuple[str, dict[str, Any]]]:
    agent, session, run, subscription = new_id("agt"), new_id("ses"), new_id("run"), new_id("sub")
    terms = '{"name": "pro", "currency": "eur", "monthly_fee": 1, "prices": [], "quotas": {}}'
    of = {"tenant_id": tenant, "created_at": 1}
    reserved = {f"{meter}_reserved": 0 for meter in METERS}
    quoted = f'{{"text": "{text}"}}'
    return [
        ("tenants", {**of, "name": text, "status": "active", "updated_at": 1}),
        ("quotas", {"tenant_id": tenant, "meter": "runs", "monthly_limit": 9}),
        (
            "subscriptions",
            {
                "tenant_id": tenant,
                "subscription_id": subscription,
                "plan_id": new_id("plan"),
                "terms": terms,
                "started_at": 1,
            },
        ),
        (
            "invoices",
            {
                **of,
                "invoice_id": new_id("inv"),
                "subscription_id": subscription,
                "period": "2026-01",
                "currency": "eur",
                "status": "open",
                "lines": "[]",
                "total": 0,
                "updated_at": 1,
            },
        ),
        (
            "api_keys",
            {**of, "key_id": new_id("key"), "name": text, "hash": b"h", "pepper_version": 1, "scopes": "[]"},
        ),
        ("agents", {**of, "agent_id": agent, "name": text, "version": 1, "updated_at": 1}),
        (
            "agent_versions",
            {**of, "agent_id": agent, "version": 1, "definition": f'{{"instructions": "{text}", "tools": []}}'},
        ),
        ("sessions", {**of, "session_id": session, "agent_id": agent, "metadata": quoted, "updated_at": 1}),
        (
            "runs",
            {
                **of,
                **reserved,
                "run_id": run,
                "agent_id": agent,
                "agent_version": 1,
                "session_id": session,
                "kind": "run",
                "mode": "wait",
                "status": "completed",
                "input": quoted,
                "output": quoted,
                "error": quoted,
                "attempt": 1,
                "period": "2026-01",
                "input_tokens": 1,
                "output_tokens": 1,
                "tool_calls": 0,
                "request_id": text,
            },
        ),
        ("run_steps", {**of, "run_id": run, "step": 0, "message": quoted}),
        ("messages", {**of, "session_id": session, "run_id": run, "position": 0, "message": quoted}),
        (
            "usage_events",
            {
                "tenant_id": tenant,
                "event_id": f"{run}:0:runs",
                "meter": "runs",
                "quantity": 1,
                "run_id": run,
                "agent_id": agent,
                "model": "kgents:echo",
                "estimated": 0,
                "occurred_at": 1,
            },
        ),
        (
            "usage_hours",
            {"tenant_id": tenant, "hour": 0, "agent_id": agent, "model": "kgents:echo", "runs": 1}
            | dict.fromkeys(METERS[1:], 0),
        ),
        ("balances", {"tenant_id": tenant, "period": "2026-01", "runs_used": 1}),
        ("cache_changes", {**of, "kind": "agent", "ref": text}),
        (
            "idempotency_keys",
            {**of, "key": text, "fingerprint": text.encode(), "body": quoted, "expires_at": 2},
        ),
        (
            "audit_log",
            {
                **of,
                "audit_id": new_id("aud"),
                "actor": "key",
                "action": "agent.create",
                "object_type": "agent",
                "object_id": agent,
                "source_ip": "192.0.2.1",
                "request_id": text,
                "detail": quoted,
            },
        ),
    ]
