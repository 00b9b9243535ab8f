"""The relay: outbox -> bus. A message leaves the outbox only when the bus has stored it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from hashlib import sha256

import structlog

from kgents.agents.signals import OUTBOX
from kgents.bus.nats import Bus, BusUnavailable
from kgents.bus.streams import RUNS_SUBJECT, USAGE_SUBJECT
from kgents.errors import KgentsError
from kgents.store.drain import drain
from kgents.store.engine import Store
from kgents.store.outbox import OutboxRow, Topic
from kgents.telemetry import messaging
from kgents.telemetry.metrics import Metrics
from kgents.usage.delivery import count_events, join

log = structlog.get_logger(__name__)

Pack = tuple[str, bytes, list[OutboxRow]]  # a message's id and payload, and the rows in it

TAKE = 1000  # rows at once
MAX_MESSAGE = 256 * 1024  # bytes of usage events in one message: one fsync for a few hundred events
MAX_EVENTS = 200  # in one message
TIMEOUT = 5.0  # seconds for the bus to store what is sent at once
IDLE = 0.2
BACK_OFF = 0.5


class Relay:
    """Moves what the outbox holds to the bus, each topic by itself and oldest first, for as long as it runs. Several
    relays may run. A topic whose stream takes nothing holds up no other.

    A crash between the bus's acknowledgement and the deletion sends messages twice; whoever consumes them counts each
    event once.
    """

    def __init__(self, store: Store, bus: Bus, metrics: Metrics) -> None:
        self._store = store
        self._bus = bus
        self._metrics = metrics
        self._nudges: dict[Topic, asyncio.Event] = {"usage": asyncio.Event(), "run": asyncio.Event()}

    async def run(self) -> None:
        """Relay until cancelled."""
        listener = asyncio.create_task(self._listen(), name="outbox nudges")
        try:
            async with asyncio.TaskGroup() as loops:
                for topic in self._nudges:
                    loops.create_task(self._relay(topic), name=f"outbox {topic}")
        finally:
            listener.cancel()

    async def _relay(self, topic: Topic) -> None:
        nudged = self._nudges[topic]
        while True:
            nudged.clear()
            try:
                moved = await self.step(topic)
            except KgentsError as error:
                log.warning("the outbox waits", topic=topic, reason=error.code)
                await asyncio.sleep(BACK_OFF)
                continue
            if moved < TAKE:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE):
                        await nudged.wait()

    async def step(self, topic: Topic) -> int:
        """Relay one batch; answers how many rows it had. Raises Unavailable, then what was not acknowledged stays."""
        failures: list[Exception] = []

        async def send(rows: Sequence[OutboxRow]) -> list[int]:
            if topic == "usage":
                return await self._publish(USAGE_SUBJECT, list(pack(rows)), failures)
            queued = [(row.message_id, row.payload.encode(), [row]) for row in rows]
            return await self._publish(RUNS_SUBJECT, queued, failures)

        moved = await drain(self._store, topic, TAKE, send)
        if failures:
            raise failures[0]
        return moved

    async def _publish(self, subject: str, packs: Sequence[Pack], failures: list[Exception]) -> list[int]:
        """Publish; answers the `seq` of the rows that the bus has stored."""
        if not packs:
            return []
        with messaging.publish(subject, len(packs), messaging.contexts_of(payload for _, payload, _ in packs)):
            acks = await self._bus.publish_many(
                subject, [(message_id, payload) for message_id, payload, _ in packs], timeout=TIMEOUT
            )
        stored = []
        for (message_id, _, rows), ack in zip(packs, acks, strict=True):
            if isinstance(ack, KgentsError):
                failures.append(ack)
            elif isinstance(ack, Exception):
                log.error("the bus's answer to a message can't be read; it is sent again", message_id=message_id)
                failures.append(BusUnavailable(f"its answer can't be read ({ack!r})."))
            else:
                stored += [row.seq for row in rows]
                self._metrics.relayed(rows[0].topic, len(rows))
        return stored

    async def _listen(self) -> None:
        async for _ in self._bus.listen(OUTBOX):
            for nudged in self._nudges.values():
                nudged.set()


def pack(rows: Sequence[OutboxRow]) -> Iterator[Pack]:
    """Usage rows as few messages. Each row's payload is a JSON array already; they are joined without being parsed."""
    members: list[OutboxRow] = []
    size = events = 0
    for row in rows:
        payload = row.payload.encode()
        more = count_events(payload)
        if members and (size + len(payload) > MAX_MESSAGE or events + more > MAX_EVENTS):
            yield _message(members)
            members, size, events = [], 0, 0
        members.append(row)
        size += len(payload)
        events += more
    if members:
        yield _message(members)


def _message(rows: list[OutboxRow]) -> Pack:
    """The message's id is that of these rows and of no others: the bus takes two messages of one id for the same."""
    ids = "\n".join(row.message_id for row in rows)
    return sha256(ids.encode()).hexdigest()[:32], join([row.payload.encode() for row in rows]), rows
