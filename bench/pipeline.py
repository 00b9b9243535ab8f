"""Usage from the ledger's outbox to the meter, with every step on disk before it is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import httpx2
from sqlalchemy import Connection

from bench.report import Figure, Profile, Scale, Section, Table, median, spread
from bench.sampling import sample
from bench.systems import Database, kgents, tenants
from kgents.clock import SystemClock
from kgents.store.engine import Scope, open_store
from kgents.usage.ledger import Posting
from tests.support import ledger
from tests.support.tenants import Tenant
from tests.support.up import Up

STEPS = 60_000  # in the outbox, of three usage events each
EVENTS = 3
GROUP = 500
TARGET = 3000
LOOK = 0.05  # seconds between two looks at the meter
LIMIT = 120.0


def run(database: Database, scale: Scale) -> Section:
    """Events a second between the first that the meter counts and the last."""
    steps = scale.count(STEPS)
    section = Section(
        title=f"Usage pipeline ({database})",
        how=(
            f"{steps * EVENTS:,} usage events of {steps:,} steps are put into the ledger and its outbox while kgents "
            "is down. Then it is started, and its worker moves them: outbox to JetStream (`sync_interval: always`), "
            "JetStream to the meter, whose database is synced before it answers. Rate: from the first events that the "
            "meter counts to the last. The API process runs, idle."
        ),
    )
    rates: list[float] = []
    exact: list[bool] = []
    profiles: list[Profile] = []
    with kgents(database) as up, tenants(up, 1) as (owner,):
        for turn in range(scale.repeats + 1):
            before = _metered(up, owner)
            up.stop()
            _fill(up, owner, steps)
            up.start()
            if turn < scale.repeats:
                rate, counted = _watch(up, owner, before, steps)
                rates.append(rate)
                exact.append(counted == before + steps)
            else:  # once more, to see what costs
                with contextlib.ExitStack() as stack:
                    for name in ("worker", "meter"):
                        where = f"{name} process, {database}"
                        stack.enter_context(sample(up.pid(name), where, min(4.0, scale.seconds(10)), profiles))
                    _watch(up, owner, before, steps)
    section.figures = [
        Figure("events a second from outbox to meter", f"at least {TARGET:,}", spread(rates), median(rates) >= TARGET),
        Figure("events that the meter then has", "all, each once", "all" if all(exact) else "not all", all(exact)),
    ]
    section.tables = [Table(["turn", "events/s"], [[str(turn + 1), f"{rate:,.0f}"] for turn, rate in enumerate(rates)])]
    section.profiles = profiles
    section.raw = {"rates": rates}
    return section


def _connection(up: Up) -> dict[str, str]:
    found: dict[str, str] = json.loads((up.data / "connections.json").read_text())
    return found


def _metered(up: Up, owner: Tenant) -> int:
    """The steps that the meter has counted."""
    url = f"{up.facts['meter_url']}/api/v1/meters/runs/query"
    headers = {"Authorization": f"Bearer {_connection(up)['meter_token']}"}
    answer = httpx2.get(url, params={"subject": owner.id}, headers=headers, timeout=10, trust_env=False)
    rows: list[dict[str, Any]] = answer.raise_for_status().json()["data"]
    return int(sum(row["value"] for row in rows))


def _fill(up: Up, owner: Tenant, steps: int) -> None:
    clock = SystemClock()

    async def fill() -> None:
        store = open_store(_connection(up)["database_url"])
        try:
            for start in range(0, steps, GROUP):
                postings = [ledger.posting(owner.id, clock.now()) for _ in range(min(GROUP, steps - start))]
                await store.write(Scope.tenant(owner.id), partial(_post, postings))
        finally:
            await store.close()

    asyncio.run(fill())


def _post(postings: Sequence[Posting], connection: Connection) -> None:
    ledger.post(connection, *postings)


def _watch(up: Up, owner: Tenant, before: int, steps: int) -> tuple[float, int]:
    """The rate in events a second, and what the meter has counted at last."""
    first: tuple[float, int] | None = None
    counted, now, deadline = before, 0.0, time.perf_counter() + LIMIT
    while counted < before + steps and time.perf_counter() < deadline:
        counted, now = _metered(up, owner), time.perf_counter()
        if first is None and counted > before:
            first = now, counted
        time.sleep(LOOK)
    if first is None or counted == first[1]:
        return 0.0, counted
    return EVENTS * (counted - first[1]) / (now - first[0]), counted
