"""The sweeper: settles what crashes and time leave behind."""

from __future__ import annotations

import asyncio

import sqlalchemy as sa
import structlog
from sqlalchemy import Connection

from kgents.agents import runs
from kgents.clock import Clock
from kgents.errors import Unavailable
from kgents.store import changes
from kgents.store.engine import Scope, Store
from kgents.store.tables import idempotency_keys
from kgents.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

INTERVAL = 2.0
MOST = 500


class Sweeper:
    """Sweeps every few seconds. Several may run: each thing is settled once."""

    def __init__(self, store: Store, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                await self.sweep()
            except Unavailable as error:
                log.warning("nothing can be swept", reason=error.code)
            await asyncio.sleep(INTERVAL)

    async def sweep(self) -> dict[str, int]:
        """Put runs whose process is gone back into the queue, and drop what has expired; answers how much of each."""
        now = self._clock.now()

        def unit(connection: Connection) -> dict[str, int]:
            left_behind = runs.orphans(connection, now, MOST)
            expired = sa.delete(idempotency_keys).where(idempotency_keys.c.expires_at <= now)
            runs.forget_processes(connection, now)
            return {
                "orphan_runs": sum(runs.requeue(connection, run, now) for run in left_behind),
                "idempotency_keys": connection.execute(expired).rowcount,
                "cache_changes": changes.prune(connection, now),
            }

        found = await self._store.write(Scope.system(), unit)
        for kind, count in found.items():
            if count:
                self._metrics.swept(kind, count)
                log.info("swept", kind=kind, count=count)
        return found
