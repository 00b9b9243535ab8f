"""The auditor: compares ledger and meter again and again, so that a difference is known before an invoice is."""

from __future__ import annotations

import asyncio

import structlog

from kgents.clock import Clock
from kgents.errors import KgentsError
from kgents.meter.client import MeterClient
from kgents.store.engine import Store
from kgents.telemetry.metrics import Metrics
from kgents.usage.totals import Totals

log = structlog.get_logger(__name__)


class Auditor:
    """Compares every `interval` seconds and tells the metrics. Several may run: they only look."""

    def __init__(self, store: Store, meter: MeterClient, metrics: Metrics, clock: Clock, interval: float) -> None:
        self._totals = Totals(store, meter)
        self._metrics = metrics
        self._clock = clock
        self._interval = interval

    async def run(self) -> None:
        """Compare until cancelled."""
        while True:
            try:
                await self.audit()
            except KgentsError as error:
                log.warning("ledger and meter could not be compared", reason=error.code)
            await asyncio.sleep(self._interval)

    async def audit(self) -> dict[str, int]:
        """Compare once; answers the units by which they differ, by meter. Raises Unavailable."""
        now = self._clock.now()
        try:
            differences = await self._totals.compare(now)
        except KgentsError:
            self._metrics.reconcile_unknown()
            raise
        self._metrics.reconciled(differences, now)
        return differences
