"""The sweeper: settles what crashes and time leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import sqlalchemy as sa
import structlog
from sqlalchemy import Connection

from kgents.agents import runs
from kgents.bus.nats import Bus
from kgents.clock import Clock
from kgents.errors import Unavailable
from kgents.store import changes
from kgents.store.engine import Scope, Store
from kgents.store.tables import idempotency_keys
from kgents.telemetry.metrics import Metrics
from kgents.workers.lost_runs import LostRuns

log = structlog.get_logger(__name__)

INTERVAL = 2.0
MOST_RUNS = 500
MOST_KEYS = 2000  # in one transaction: what a day without a sweeper left must neither time out nor hold up the others


class Sweeper:
    """Sweeps every few seconds. Several may run: each thing is settled once."""

    def __init__(self, store: Store, bus: Bus, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._lost = LostRuns(store, bus, clock)
        self._changes = changes.Pruner(store, clock)

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                await self.sweep()
            except Unavailable as error:
                log.warning("not everything could be swept", reason=error.code)
            await asyncio.sleep(INTERVAL)

    async def sweep(self) -> dict[str, int]:
        """Put runs whose process is gone, or whose message the bus has lost, back into the queue, and drop what has
        expired; answers how much of each.

        Runs come first and by themselves, so that nothing else can keep them from being taken up again. The bus comes
        last: all the rest is done while it is away. Raises Unavailable.
        """
        now = self._clock.now()
        found = {"orphan_runs": await self._settle("orphan_runs", lambda connection: requeue_orphans(connection, now))}
        found["idempotency_keys"] = 0
        while more := await self._settle("idempotency_keys", lambda connection: expire_keys(connection, now)):
            found["idempotency_keys"] += more
            if more < MOST_KEYS:
                break
        found["cache_changes"] = self._count("cache_changes", await self._changes.prune())
        found["processes"] = await self._settle("processes", lambda connection: runs.forget_processes(connection, now))
        found["lost_runs"] = self._count("lost_runs", await self._lost.sweep())
        return found

    async def _settle(self, kind: str, fn: Callable[[Connection], int]) -> int:
        return self._count(kind, await self._store.write(Scope.system(), fn))

    def _count(self, kind: str, count: int) -> int:
        if count:
            self._metrics.swept(kind, count)
            log.info("swept", kind=kind, count=count)
        return count


def requeue_orphans(connection: Connection, now: int) -> int:
    """Give runs whose process is gone back to the queue; answers how many."""
    return sum(runs.requeue(connection, run, now) for run in runs.orphans(connection, now, MOST_RUNS))


def expire_keys(connection: Connection, now: int) -> int:
    """Drop idempotency keys that have expired, at most MOST_KEYS; answers how many."""
    name = sa.tuple_(idempotency_keys.c.tenant_id, idempotency_keys.c.key)
    expired = (
        sa.select(idempotency_keys.c.tenant_id, idempotency_keys.c.key)
        .where(idempotency_keys.c.expires_at <= now)
        .limit(MOST_KEYS)
    )
    return connection.execute(sa.delete(idempotency_keys).where(name.in_(expired))).rowcount
