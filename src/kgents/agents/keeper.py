"""What keeps a process's runs its own: heartbeats, requests to cancel, giving back runs that it could not record, and
those that it does not know of.
"""

from __future__ import annotations

import asyncio

import structlog
from sqlalchemy import Connection

from kgents.agents import runs, signals
from kgents.agents.executor import Executor
from kgents.bus.nats import Bus
from kgents.clock import Clock
from kgents.errors import Unavailable
from kgents.store.engine import Scope, Store

log = structlog.get_logger(__name__)

INTERVAL = runs.LEASE / 4
RETRY = INTERVAL / 4  # seconds after a failure: once an outage is over, everybody has one lease to be heard of again


class Keeper:
    """One for each process that carries out runs."""

    def __init__(self, *, store: Store, bus: Bus, clock: Clock, executor: Executor, name: str, kind: str) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._executor = executor
        self._name = name
        self._kind = kind

    async def beat(self) -> None:
        """Say that this process is alive, cancel what is to be cancelled, and find runs that are recorded as this
        process's and that it does not carry out: the next beat gives them back. Raises Unavailable.

        Such a run is left when the database commits an admission and goes away before it says so, however late. A run
        that ends just now looks the same; giving that back changes nothing.
        """
        instance, now = self._executor.instance, self._clock.now()
        stranded = self._executor.stranded()

        def unit(connection: Connection) -> tuple[list[runs.Held], list[str]]:
            runs.heartbeat(connection, self._name, instance, self._kind, now)
            returned = [run.run_id for run in stranded if runs.requeue(connection, run, now)]
            return runs.held(connection, instance), returned

        held, returned = await self._store.write(Scope.system(), unit)
        self._executor.given_back(stranded)
        for run_id in returned:
            log.warning("gave back a run that was recorded as this process's", run_id=run_id)
        for run in held:
            if not self._executor.knows(run.run_id):
                self._executor.strand(run)
            elif run.cancel_requested:
                self._executor.cancel(run.run_id)

    async def run(self) -> None:
        """Beat until cancelled; a database that is away is tried again."""
        listener = asyncio.create_task(self._listen(), name="cancel-requests")
        try:
            while True:
                try:
                    await self.beat()
                except Unavailable as error:
                    log.warning("heartbeat failed", reason=error.code)
                    await asyncio.sleep(RETRY)
                    continue
                await asyncio.sleep(INTERVAL)
        finally:
            listener.cancel()

    async def leave(self) -> None:
        """Say that this process has ended, so that nobody waits for it."""
        try:
            await self._store.write(Scope.system(), lambda connection: runs.leave(connection, self._executor.instance))
        except Unavailable:
            log.warning("could not sign off: the database is away")

    async def _listen(self) -> None:
        async for run_id in signals.cancel_requests(self._bus):
            self._executor.cancel(run_id)
