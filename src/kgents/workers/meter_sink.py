"""The meter sink: bus -> meter. A message is acknowledged only when the meter has accepted its events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import structlog

from kgents.bus.nats import Bus, Delivery
from kgents.bus.streams import USAGE_STREAM, USAGE_SUBJECT
from kgents.errors import Unavailable
from kgents.meter.client import MeterClient, MeterRefused, MeterUnavailable
from kgents.telemetry import messaging
from kgents.telemetry.metrics import Metrics
from kgents.telemetry.trace_context import without_contexts
from kgents.usage.delivery import Refused, count_events, deliver, is_array, join

log = structlog.get_logger(__name__)

ACK_WAIT = 10.0  # seconds after which the bus gives a message to another sink; so long, at most, a killed one's wait
FETCH = 8  # messages that are fetched ahead
MAX_EVENTS = 500  # in one request to the meter
FIRST_DELAY, MAX_DELAY = 0.25, 5.0


class MeterSink:
    """Hands usage to the meter for as long as it runs; while the meter is away, the bus keeps it."""

    def __init__(self, bus: Bus, meter: MeterClient, metrics: Metrics) -> None:
        self._bus = bus
        self._meter = meter
        self._metrics = metrics

    async def run(self) -> None:
        """Deliver until cancelled, or until the bus is closed."""
        async with (
            self._bus.consume(USAGE_STREAM, "meter-sink", batch=FETCH, ack_wait=ACK_WAIT) as deliveries,
            contextlib.aclosing(batches(deliveries)) as together,
        ):
            async for batch in together:
                try:
                    contexts = messaging.contexts_of(delivery.data for delivery in batch)
                    with messaging.process(USAGE_SUBJECT, len(batch), contexts):
                        refused = await self._deliver(batch)
                        await self._settle(batch, refused)
                except asyncio.CancelledError:
                    await _give_back(batch)
                    raise

    async def _deliver(self, batch: Sequence[Delivery]) -> list[list[Refused]]:
        """Have the meter take the batch, however long that lasts; answers what it refused of each message."""
        delay = FIRST_DELAY
        while True:
            try:
                refused = await self._hand_over(batch)
            except MeterUnavailable as error:
                self._metrics.meter(connected=False)
                log.warning("usage waits for the meter", reason=error.detail, retry_in=delay)
                await _keep(batch)
                await asyncio.sleep(delay)
                delay = min(MAX_DELAY, delay * 2)
                continue
            self._metrics.meter(connected=True)
            return refused

    async def _hand_over(self, batch: Sequence[Delivery]) -> list[list[Refused]]:
        payloads = [without_contexts(delivery.data) for delivery in batch]
        if len(payloads) > 1 and all(map(is_array, payloads)):
            with contextlib.suppress(MeterRefused):  # then it is for one of them: each by itself shows which
                await self._meter.ingest(join(payloads))
                return [[] for _ in payloads]
        return [await deliver(self._meter, payload) for payload in payloads]

    async def _settle(self, batch: Sequence[Delivery], refused: Sequence[Sequence[Refused]]) -> None:
        """Take the messages off the bus. One with events that the meter refused is terminated, of which the bus tells
        its operators; the events stay in the ledger, and reconcile names them.
        """
        lost = [event for events in refused for event in events]
        for event in lost:
            log.error("the meter refused a usage event", event_id=event.event_id, reason=event.reason)
        self._metrics.metered(max(0, sum(count_events(delivery.data) for delivery in batch) - len(lost)))
        self._metrics.refused(len(lost))
        done = (delivery.term() if events else delivery.ack() for delivery, events in zip(batch, refused, strict=True))
        for outcome in await asyncio.gather(*done, return_exceptions=True):
            if isinstance(outcome, Unavailable):
                # The bus did not hear of it: the message comes again, and the meter counts its events once.
                log.warning("usage was delivered but not acknowledged", reason=outcome.code)
            elif isinstance(outcome, BaseException):
                raise outcome


async def batches(deliveries: AsyncIterator[Delivery]) -> AsyncGenerator[list[Delivery]]:
    """What waits, as lists for one request each: whatever is there at the moment, up to MAX_EVENTS."""
    following = asyncio.ensure_future(_next(deliveries))
    try:
        while (first := await following) is not None:
            batch, events = [first], count_events(first.data)
            while True:
                following = asyncio.ensure_future(_next(deliveries))
                await asyncio.sleep(0)  # what is there already has come after that
                more = following.result() if following.done() else None
                if more is None:
                    break
                events += count_events(more.data)
                if events > MAX_EVENTS:
                    break
                batch.append(more)
            yield batch
    finally:
        following.cancel()
        if following.done() and not following.cancelled() and not following.exception():
            ahead = following.result()
            await _give_back([ahead] if ahead else [])


async def _next(deliveries: AsyncIterator[Delivery]) -> Delivery | None:
    return await anext(deliveries, None)


async def _give_back(batch: Sequence[Delivery]) -> None:
    """Have the bus give the messages to another sink at once, if it is there. One that is done already stays done."""
    with contextlib.suppress(Unavailable):
        for delivery in batch:
            await delivery.nak()


async def _keep(batch: Sequence[Delivery]) -> None:
    """Have the bus wait on, if it is there."""
    with contextlib.suppress(Unavailable):
        for delivery in batch:
            await delivery.in_progress()
