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
TRIES = 4  # of a batch, before its messages are tried apart
RETRY = 1.0  # seconds, doubled with each delivery of a message that the meter fails on

Outcome = list[Refused] | None  # what the meter refused of a message; None where it fails on the message


class MeterSink:
    """Hands usage to the meter for as long as it runs; while the meter is away, the bus keeps it.

    A message that the meter fails on, while it answers otherwise, stays on the bus too and comes again later and later,
    and the others go on without it. None is given up that the meter has not refused for good.
    """

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
                        outcomes = await self._deliver(batch)
                        await self._settle(batch, outcomes)
                except asyncio.CancelledError:
                    await _give_back(batch)
                    raise

    async def _deliver(self, batch: Sequence[Delivery]) -> list[Outcome]:
        """Have the meter take the batch, for as long as it is away."""
        return await self._deliver_part(batch, batch, TRIES)

    async def _deliver_part(self, part: Sequence[Delivery], batch: Sequence[Delivery], tries: int) -> list[Outcome]:
        """The same for a part of a batch. Once it has failed `tries` times while the meter answers otherwise, its
        halves are tried by themselves, each once, down to single messages.
        """
        delay, failures = FIRST_DELAY, 0
        while True:
            try:
                refused = await self._hand_over(part)
            except MeterUnavailable as error:
                failures += 1
                self._metrics.meter(connected=False)
                await _keep(batch)
                if failures >= tries and await self._answers():
                    if len(part) == 1:
                        return [None]
                    middle = len(part) // 2
                    first = await self._deliver_part(part[:middle], batch, 1)
                    return first + await self._deliver_part(part[middle:], batch, 1)
                log.warning("usage waits for the meter", reason=error.detail, retry_in=delay)
                await _keep(batch)
                await asyncio.sleep(delay)
                delay = min(MAX_DELAY, delay * 2)
                continue
            self._metrics.meter(connected=True)
            return list(refused)

    async def _answers(self) -> bool:
        """Whether the meter answers what is no usage."""
        try:
            await self._meter.ping()
        except MeterUnavailable:
            return False
        return True

    async def _hand_over(self, batch: Sequence[Delivery]) -> list[list[Refused]]:
        payloads = [without_contexts(delivery.data) for delivery in batch]
        if len(payloads) > 1 and all(map(is_array, payloads)):
            with contextlib.suppress(MeterRefused):  # then it is for one of them: each by itself shows which
                await self._meter.ingest(join(payloads))
                return [[] for _ in payloads]
        return [await deliver(self._meter, payload) for payload in payloads]

    async def _settle(self, batch: Sequence[Delivery], outcomes: Sequence[Outcome]) -> None:
        """Take the messages off the bus, save those that are to come again. One with events that the meter refused is
        terminated, of which the bus tells its operators; the events stay in the ledger, and reconcile names them.
        """
        ended = list(zip(batch, outcomes, strict=True))
        lost = [event for events in outcomes for event in events or ()]
        for event in lost:
            log.error("the meter refused a usage event", event_id=event.event_id, reason=event.reason)
        taken = sum(count_events(delivery.data) for delivery, events in ended if events is not None)
        self._metrics.metered(max(0, taken - len(lost)))
        self._metrics.refused(len(lost))
        for told in await asyncio.gather(*(_end(*each) for each in ended), return_exceptions=True):
            if isinstance(told, Unavailable):
                # The bus did not hear of it: the message comes again, and the meter counts its events once.
                log.warning("the bus was not told what became of usage; it comes again", reason=told.code)
            elif isinstance(told, BaseException):
                raise told


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


async def _end(delivery: Delivery, outcome: Outcome) -> None:
    if outcome is None:
        delay = retry_in(delivery.delivered)
        log.error("the meter fails on a message of usage; it is kept", message_id=delivery.message_id, retry_in=delay)
        await delivery.nak(delay)
    elif outcome:
        await delivery.term()
    else:
        await delivery.ack()


def retry_in(delivered: int) -> float:
    """Seconds after which a message comes again that the meter has failed on, at its so many'th delivery."""
    return RETRY * 2.0 ** min(delivered, 6)


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
