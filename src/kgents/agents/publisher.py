"""Publishing one run's events to the bus, in order, several to a message, by one process at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

import structlog

from kgents.agents.events import RunEvent, load_events
from kgents.bus.nats import Bus, WrongLastSequence
from kgents.errors import TooLarge, Unavailable
from kgents.telemetry import messaging

log = structlog.get_logger(__name__)

MAX_CHUNK = 64  # events
CHUNK_BYTES = 1024 * 1024  # of a message, but for a single event that is larger
MAX_STORED = 1024 * 1024  # bytes of a run's events that are kept to be sent again
LINGER = 30.0  # seconds that a finished run's events wait for a bus that is away


def events_subject(run_id: str) -> str:
    """The subject of a run's events."""
    return f"kgents.events.{run_id}"


@dataclass(slots=True)
class _Chunk:
    """Some events as one message. `sequence` is its place in the stream, once it is stored."""

    payload: bytes
    message_id: str
    sequence: int = 0


class Publisher:
    """Sends chunks one after another, each only after the last was acknowledged.

    Each names the stream sequence of the chunk before it, so that of two processes which both believe to own the run
    only one can publish. While the bus is away events wait here; a run never waits for them.
    """

    def __init__(self, bus: Bus, run_id: str) -> None:
        self._bus = bus
        self._run_id = run_id
        self._subject = events_subject(run_id)
        self._waiting: deque[RunEvent] = deque()
        self._unsent: deque[_Chunk] = deque()
        self._stored: deque[_Chunk] = deque()
        self._stored_bytes = 0
        self._changed = asyncio.Event()
        self._closed = False
        self._last_on_subject = 0
        self._lost = False

    async def resume(self) -> int:
        """Go on after what an earlier process published: answers the last event's sequence (0 when there is none).

        Raises Unavailable when the bus is away: without it the numbers could repeat.
        """
        last = await self._bus.last_event(self._run_id)
        if last is None:
            return 0
        self._last_on_subject = last[0]
        return load_events(last[1])[-1].sequence

    def put(self, event: RunEvent) -> None:
        """Send an event when its turn comes."""
        self._waiting.append(event)
        self._changed.set()

    def close(self) -> None:
        """No more events will come."""
        self._closed = True
        self._changed.set()

    async def run(self) -> None:
        """Publish until closed and empty."""
        lingered = 0.0
        while self._unsent or self._waiting or not self._closed:
            if not self._unsent and not self._waiting:
                self._changed.clear()
                await self._changed.wait()
                continue
            if not self._unsent:
                self._unsent.append(self._chunk())
            try:
                sent = await self._send(self._unsent[0])
            except TooLarge:
                log.warning("an event is larger than the bus takes, and was left out", run_id=self._run_id)
                self._unsent.popleft()
                continue
            if sent:
                self._keep(self._unsent.popleft())
            elif self._lost or lingered >= LINGER:
                log.warning("run events were not published", run_id=self._run_id, taken_over=self._lost)
                return
            else:
                await asyncio.sleep(0.5)
                lingered += 0.5 if self._closed else 0.0

    def _chunk(self) -> _Chunk:
        first = self._waiting[0].sequence
        dumped: list[bytes] = []
        size = 0
        while self._waiting and len(dumped) < MAX_CHUNK:
            event = self._waiting[0].dump()
            size += len(event)
            if dumped and size > CHUNK_BYTES:
                break
            dumped.append(event)
            self._waiting.popleft()
        return _Chunk(b"[" + b",".join(dumped) + b"]", f"{self._run_id}:{first}")

    def _keep(self, chunk: _Chunk) -> None:
        """Remember a chunk that was stored, should the server lose it again (run events are written behind)."""
        self._stored.append(chunk)
        self._stored_bytes += len(chunk.payload)
        while self._stored_bytes > MAX_STORED:
            self._stored_bytes -= len(self._stored.popleft().payload)

    async def _send(self, chunk: _Chunk) -> bool:
        try:
            with messaging.publish("kgents.events"):
                ack = await self._bus.publish(
                    self._subject,
                    chunk.payload,
                    message_id=chunk.message_id,
                    expect_last_on_subject=self._last_on_subject,
                )
        except WrongLastSequence as error:
            if error.actual is not None and error.actual < self._last_on_subject:
                self._rewind(error.actual)
                return False
            # Either an earlier try of this chunk arrived although its acknowledgement did not, or the run has
            # another owner.
            return await self._adopt(chunk)
        except Unavailable:
            return False
        self._last_on_subject = chunk.sequence = ack.seq
        return True

    def _rewind(self, actual: int) -> None:
        """The server lost what it had stored after `actual`: that goes again, before what is new."""
        while self._stored and self._stored[-1].sequence > actual:
            chunk = self._stored.pop()
            self._stored_bytes -= len(chunk.payload)
            self._unsent.appendleft(chunk)
        self._last_on_subject = actual

    async def _adopt(self, chunk: _Chunk) -> bool:
        try:
            last = await self._bus.last_event(self._run_id)
        except Unavailable:
            return False
        if last is not None and last[1] == chunk.payload:
            self._last_on_subject = chunk.sequence = last[0]
            return True
        self._lost = True
        return False
