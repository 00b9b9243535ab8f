"""A database as it is after years: many tenants and a long ledger, written past kgents, as copies of a real tenant."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

import asyncpg

from kgents.clock import SystemClock
from kgents.ids import new_id
from kgents.tenants import keys
from tests.support.postgres import PostgresServer
from tests.support.tenants import Tenant
from tests.support.up import Up

EVENTS_OF_A_RUN = 3
Row = dict[str, Any]


class Filler:
    """Copies what the tenant `model` has in a stopped kgents. `tokens` are the API keys of the tenants made."""

    def __init__(self, up: Up, model: Tenant, server: PostgresServer | None, database: str) -> None:
        self._server, self._database = server, database
        self._file = up.data / "kgents.db"
        self._tenant = model.id
        self._peppers = keys.parse_peppers(json.loads((up.data / "secrets.json").read_text())["pepper"])
        self._clock = SystemClock()
        self._random = random.Random(4)
        self._ids: list[str] = []
        self.tokens: list[str] = []

    def fill(self, tenants: int, events: int) -> None:
        """Make so many tenants, each with a key, quotas and an agent, and so many ledger rows, with their runs."""
        template = {name: self._rows(name) for name in _TABLES}
        self._write(self._tenants(template, tenants))
        self._write(self._ledger(template, events))
        if self._server is not None:
            self._server.sql(["VACUUM ANALYZE"], self._database)

    def count(self, table: str) -> int:
        """How many rows a table has."""
        statement = f"SELECT count(*) AS rows FROM {table}"
        if self._server is not None:
            return int(self._server.sql([statement], self._database)[0][0]["rows"])
        with sqlite3.connect(self._file) as connection:
            return int(connection.execute(statement).fetchone()[0])

    def _rows(self, table: str) -> list[Row]:
        if self._server is not None:
            statement = f"SELECT * FROM {table} WHERE tenant_id = '{self._tenant}'"
            return [dict(row) for row in self._server.sql([statement], self._database)[0]]
        with sqlite3.connect(self._file) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(f"SELECT * FROM {table} WHERE tenant_id = ?", [self._tenant]).fetchall()
            return [dict(row) for row in found]

    def _tenants(self, template: dict[str, list[Row]], count: int) -> Iterator[tuple[str, Iterable[Row]]]:
        made: dict[str, list[Row]] = {name: [] for name in ("tenants", *_OF_A_TENANT)}
        for number in range(count):
            tenant_id, agent_id = new_id("ten"), new_id("agt")
            key = keys.generate(self._peppers, self._clock)
            self._ids.append(tenant_id)
            self.tokens.append(key.token)
            fresh: dict[str, Row] = {
                "tenants": {"name": f"filled {number}"},
                "agents": {"agent_id": agent_id},
                "agent_versions": {"agent_id": agent_id},
                "usage_hours": {"agent_id": agent_id},
                "api_keys": {"key_id": key.key_id, "hash": key.digest, "pepper_version": key.pepper_version},
            }
            for table, rows in made.items():
                for row in template[table]:
                    rows.append(row | {"tenant_id": tenant_id} | fresh.get(table, {}))
        yield from made.items()

    def _ledger(self, template: dict[str, list[Row]], count: int) -> Iterator[tuple[str, Iterable[Row]]]:
        (run, *_), events = template["runs"], template["usage_events"][:EVENTS_OF_A_RUN]
        made = [(self._random.choice(self._ids), new_id("run")) for _ in range(-(-count // EVENTS_OF_A_RUN))]
        yield "runs", (run | {"tenant_id": tenant_id, "run_id": run_id} for tenant_id, run_id in made)
        yield (
            "usage_events",
            (
                event | {"tenant_id": tenant_id, "run_id": run_id, "event_id": f"{run_id}:0:{event['meter']}"}
                for tenant_id, run_id in made
                for event in events
            ),
        )

    def _write(self, tables: Iterable[tuple[str, Iterable[Row]]]) -> None:
        if self._server is not None:
            asyncio.run(_copy(self._server.superuser_url(self._database), tables))
            return
        connection = sqlite3.connect(self._file)
        try:
            connection.execute("PRAGMA synchronous=OFF")
            for table, rows in tables:
                iterator = iter(rows)
                first = next(iterator)
                statement = f"INSERT INTO {table} ({', '.join(first)}) VALUES ({', '.join('?' * len(first))})"
                connection.execute(statement, tuple(first.values()))
                connection.executemany(statement, (tuple(row.values()) for row in iterator))
                connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()


async def _copy(url: str, tables: Iterable[tuple[str, Iterable[Row]]]) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        for table, rows in tables:
            iterator = iter(rows)
            first = next(iterator)
            records = (tuple(row.values()) for part in ([first], iterator) for row in part)
            await connection.copy_records_to_table(table, records=records, columns=list(first))
    finally:
        await connection.close()


_OF_A_TENANT = ("quotas", "api_keys", "agents", "agent_versions", "balances", "usage_hours")
_TABLES = ("tenants", *_OF_A_TENANT, "runs", "usage_events")
