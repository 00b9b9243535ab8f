"""The sweeper: settles what crashes and time leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

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
from kgents.workers.heartbeats import LOOK, Heartbeats
from kgents.workers.lost_runs import LostRuns

log = structlog.get_logger(__name__)

INTERVAL = 2.0  # seconds between two rounds of tidying
MOST_RUNS = 500
MOST_KEYS = 2000  # in one transaction: what a day without a sweeper left must neither time out nor hold up the others


class Sweeper:
    """Sweeps every few seconds. Several may run: each thing is settled once.

    Runs are taken up in a loop of their own, so that nothing else can keep them from it, nor delay the looks at the
    heartbeats, of which a late one says nothing.
    """

    def __init__(self, store: Store, bus: Bus, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._lost = LostRuns(store, bus, clock)
        self._heartbeats = Heartbeats(clock)
        self._dead: list[runs.Heartbeat] = []
        self._changes = changes.Pruner(store, clock)

    async def run(self) -> None:
        """Sweep until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(_repeat(self.take_up, LOOK), name="orphan runs")
            loops.create_task(_repeat(self.tidy, INTERVAL), name="tidying")

    async def take_up(self) -> int:
        """Put runs whose process is gone back into the queue; answers how many. Raises Unavailable."""
        now = self._clock.now()

        def unit(connection: Connection) -> int:
            self._dead = self._heartbeats.look(runs.heartbeats(connection))
            return requeue_orphans(connection, self._dead, now)

        try:
            return await self._settle("orphan_runs", unit)
        except Unavailable:
            self._heartbeats.forget()
            raise

    async def tidy(self) -> dict[str, int]:
        """Drop what has expired, and put runs whose message the bus has lost back into the queue; answers how much of
        each. The bus comes last: all the rest is done while it is away. Raises Unavailable.
        """
        now, dead = self._clock.now(), self._dead
        found = {"idempotency_keys": 0}
        while more := await self._settle("idempotency_keys", lambda connection: expire_keys(connection, now)):
            found["idempotency_keys"] += more
            if more < MOST_KEYS:
                break
        found["cache_changes"] = self._count("cache_changes", await self._changes.prune())
        found["processes"] = await self._settle(
            "processes", lambda connection: runs.forget_processes(connection, dead, now)
        )
        found["lost_runs"] = self._count("lost_runs", await self._lost.sweep())
        return found

    async def _settle(self, kind: str, fn: Callable[[Connection], int]) -> int:
        return self._count(kind, await self._store.write(Scope.system(), fn))

    def _count(self, kind: str, count: int) -> int:
        if count:
            self._metrics.swept(kind, count)
            log.info("swept", kind=kind, count=count)
        return count


async def _repeat(work: Callable[[], Awaitable[object]], interval: float) -> None:
    while True:
        try:
            await work()
        except Unavailable as error:
            log.warning("not everything could be swept", reason=error.code)
        await asyncio.sleep(interval)


def requeue_orphans(connection: Connection, dead: Sequence[runs.Heartbeat], now: int) -> int:
    """Give runs whose process is gone back to the queue; answers how many."""
    return sum(runs.requeue(connection, run, now) for run in runs.orphans(connection, dead, MOST_RUNS))


def expire_keys(connection: Connection, now: int) -> int:
    """Drop idempotency keys that have expired, at most MOST_KEYS; answers how many."""
    name = sa.tuple_(idempotency_keys.c.tenant_id, idempotency_keys.c.key)
    expired = (
        sa.select(idempotency_keys.c.tenant_id, idempotency_keys.c.key)
        .where(idempotency_keys.c.expires_at <= now)
        .limit(MOST_KEYS)
    )
    return connection.execute(sa.delete(idempotency_keys).where(name.in_(expired))).rowcount
