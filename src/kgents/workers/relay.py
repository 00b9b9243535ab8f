"""The relay: outbox -> bus. A message leaves the outbox only when the bus has stored it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import structlog

from kgents.agents.signals import OUTBOX
from kgents.bus.nats import Bus
from kgents.bus.streams import RUNS_SUBJECT, USAGE_SUBJECT
from kgents.errors import Unavailable
from kgents.store import outbox
from kgents.store.engine import Scope, Store
from kgents.store.outbox import OutboxRow
from kgents.telemetry import traces
from kgents.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

TAKE = 1000
MAX_MESSAGE = 256 * 1024  # bytes of usage events in one message: one fsync for some hundred events
IDLE = 0.2
BACK_OFF = 0.5


class Relay:
    """Moves what the outbox holds to the bus, in order, for as long as it runs.

    A crash between the bus's acknowledgement and the deletion sends messages twice; whoever consumes them counts each
    event once. Several relays may run: on PostgreSQL each may send the same rows, which costs time but no truth.
    """

    def __init__(self, store: Store, bus: Bus, metrics: Metrics) -> None:
        self._store = store
        self._bus = bus
        self._metrics = metrics
        self._nudged = asyncio.Event()

    async def run(self) -> None:
        """Relay until cancelled."""
        listener = asyncio.create_task(self._listen(), name="outbox nudges")
        try:
            while True:
                self._nudged.clear()
                try:
                    moved = await self.step()
                except Unavailable as error:
                    log.warning("the outbox waits", reason=error.code)
                    await asyncio.sleep(BACK_OFF)
                    continue
                if moved < TAKE:
                    await self._wait()
        finally:
            listener.cancel()

    async def step(self) -> int:
        """Relay one batch; answers how many rows went. Raises Unavailable, then what was not acknowledged stays."""
        rows = await self._store.read(Scope.system(), lambda connection: outbox.take(connection, TAKE))
        if not rows:
            return 0
        usage = [row for row in rows if row.topic == "usage"]
        queued = [row for row in rows if row.topic == "run"]
        sent: list[int] = []
        failure: Exception | None = None
        for subject, packs in (
            (RUNS_SUBJECT, [(row.message_id, row.payload.encode(), [row]) for row in queued]),
            (USAGE_SUBJECT, list(pack(usage))),
        ):
            with traces.publish(subject, len(packs)):
                acks = await self._bus.publish_many(
                    subject, [(message_id, payload) for message_id, payload, _ in packs]
                )
            for (_, _, members), ack in zip(packs, acks, strict=True):
                if isinstance(ack, Exception):
                    failure = ack
                else:
                    sent.extend(row.seq for row in members)
                    self._metrics.relayed(members[0].topic, len(members))
        if sent:
            await self._store.write(Scope.system(), lambda connection: outbox.delete(connection, sent))
        if failure is not None:
            raise failure
        return len(rows)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(IDLE):
                await self._nudged.wait()
        except TimeoutError:
            return

    async def _listen(self) -> None:
        async for _ in self._bus.listen(OUTBOX):
            self._nudged.set()


def pack(rows: Sequence[OutboxRow]) -> Iterator[tuple[str, bytes, list[OutboxRow]]]:
    """Usage rows as few messages: (message id, a JSON array of CloudEvents, the rows in it).

    Each row's payload is a JSON array already, so they are joined without being parsed.
    """
    members: list[OutboxRow] = []
    size = 0
    for row in rows:
        if members and size + len(row.payload) > MAX_MESSAGE:
            yield _message(members)
            members, size = [], 0
        members.append(row)
        size += len(row.payload)
    if members:
        yield _message(members)


def _message(members: list[OutboxRow]) -> tuple[str, bytes, list[OutboxRow]]:
    payload = ("[" + ",".join(row.payload[1:-1] for row in members) + "]").encode()
    return f"{members[0].message_id}+{len(members)}+{members[-1].message_id}", payload, members
