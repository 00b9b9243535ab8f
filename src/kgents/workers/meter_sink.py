"""The meter sink: bus -> meter. A message is acknowledged only when the meter has accepted its events."""

from __future__ import annotations

import asyncio

import orjson
import structlog

from kgents.bus.nats import Bus, Delivery
from kgents.bus.streams import USAGE_STREAM, USAGE_SUBJECT
from kgents.errors import Unavailable
from kgents.meter.client import MeterClient, MeterRefused, MeterUnavailable
from kgents.telemetry import traces
from kgents.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

ACK_WAIT = 10.0
FETCH = 2
FIRST_DELAY, MAX_DELAY = 0.25, 5.0


class MeterSink:
    """Hands usage to the meter for as long as it runs; while the meter is away, the bus keeps it."""

    def __init__(self, bus: Bus, meter: MeterClient, metrics: Metrics) -> None:
        self._bus = bus
        self._meter = meter
        self._metrics = metrics
        self._delay = FIRST_DELAY

    async def run(self) -> None:
        """Deliver until cancelled."""
        async for delivery in self._bus.consume(USAGE_STREAM, "meter-sink", batch=FETCH, ack_wait=ACK_WAIT):
            try:
                with traces.process(USAGE_SUBJECT):
                    await self._deliver(delivery)
            except Unavailable as error:
                # The bus did not hear of it: the message comes again, and the meter counts its events once.
                log.warning("usage was delivered but not acknowledged", reason=error.code)

    async def _deliver(self, delivery: Delivery) -> None:
        while True:
            try:
                refused = await self._ingest(delivery.data)
            except MeterUnavailable as error:
                self._metrics.meter(connected=False)
                log.warning("usage waits for the meter", reason=error.detail, retry_in=self._delay)
                await delivery.in_progress()
                await asyncio.sleep(self._delay)
                self._delay = min(MAX_DELAY, self._delay * 2)
                continue
            self._delay = FIRST_DELAY
            self._metrics.meter(connected=True)
            self._metrics.refused(refused)
            await delivery.ack()
            return

    async def _ingest(self, payload: bytes) -> int:
        """Hand events over; answers how many the meter refused for good. They stay in the ledger, and reconcile names
        them. Raises MeterUnavailable.
        """
        try:
            await self._meter.ingest(payload)
        except MeterRefused as error:
            return await self._divide(payload, error)
        self._metrics.metered(payload.count(b'"specversion"'))
        return 0

    async def _divide(self, payload: bytes, error: MeterRefused) -> int:
        events = orjson.loads(payload)
        if len(events) == 1:
            log.error("the meter refused a usage event", event=events[0].get("id"), reason=error.detail)
            return 1
        half = len(events) // 2
        return await self._ingest(orjson.dumps(events[:half])) + await self._ingest(orjson.dumps(events[half:]))
