"""The gauges of the bus's streams: what waits in them, and on how many servers."""

from __future__ import annotations

import asyncio

from kgents.bus.nats import Bus, BusUnavailable
from kgents.bus.streams import EVENTS_STREAM, RUNS_STREAM, USAGE_STREAM
from kgents.telemetry.metrics import Metrics

INTERVAL = 2.0


class StreamWatch:
    """Asks the bus for its streams every few seconds. Several may: each tells what it was answered."""

    def __init__(self, bus: Bus, metrics: Metrics) -> None:
        self._bus = bus
        self._metrics = metrics

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await asyncio.gather(*(self._look(stream) for stream in (USAGE_STREAM, RUNS_STREAM, EVENTS_STREAM)))
            await asyncio.sleep(INTERVAL)

    async def _look(self, stream: str) -> None:
        try:
            found = await self._bus.pending(stream)
        except BusUnavailable:
            self._metrics.stream_unknown(stream)
            return
        self._metrics.stream(
            stream,
            messages=found.messages,
            size_bytes=found.size_bytes,
            oldest_age=found.oldest_age,
            replicas=found.replicas,
            replicas_current=found.replicas_current,
        )
