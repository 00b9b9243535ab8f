"""Run events: what a run says while it works, numbered from 1, so that a stream can be resumed after any of them."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import orjson

EventType = Literal[
    "run.created",
    "run.restarted",
    "text.delta",
    "step.completed",
    "tool.result",
    "run.completed",
    "run.failed",
    "run.cancelled",
]

TERMINAL: frozenset[str] = frozenset({"run.completed", "run.failed", "run.cancelled"})


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One event. `sequence` counts from 1 within its run and is the SSE id."""

    sequence: int
    type: EventType
    data: dict[str, Any]

    @property
    def terminal(self) -> bool:
        """Whether it is the run's last."""
        return self.type in TERMINAL

    def dump(self) -> bytes:
        """The event as JSON."""
        return orjson.dumps({"sequence": self.sequence, "type": self.type, "data": self.data})


def load_events(chunk: bytes) -> list[RunEvent]:
    """The events of a chunk: one message on the bus, which carries a JSON array of events in order."""
    return [RunEvent(item["sequence"], item["type"], item["data"]) for item in orjson.loads(chunk)]


class Channel:
    """A bounded way for one run's events to one client in this process.

    When the client does not keep up, the run waits for it, but at most `patience` seconds; then the channel is closed
    to the client, who can resume from the bus, and the run goes on without it.
    """

    def __init__(self, limit: int = 256, patience: float = 30.0) -> None:
        self._events: deque[RunEvent] = deque()
        self._limit = limit
        self._patience = patience
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self.closed = False

    def put(self, event: RunEvent) -> None:
        """Add an event; a no-op once closed."""
        if not self.closed:
            self._events.append(event)
            self._changed.set()

    async def room(self) -> None:
        """Wait until the client has caught up, or give it up."""
        if self.closed or len(self._events) < self._limit:
            return
        self._room.clear()
        try:
            async with asyncio.timeout(self._patience):
                await self._room.wait()
        except TimeoutError:
            self.close()

    def close(self) -> None:
        """No more events, for the client or for the run."""
        self.closed = True
        self._changed.set()
        self._room.set()

    async def get(self, timeout: float) -> RunEvent | None:
        """The next event; None when none came within `timeout` seconds. Raises EOFError once closed and empty."""
        if not self._events:
            if self.closed:
                raise EOFError
            self._changed.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._changed.wait()
            except TimeoutError:
                return None
            if not self._events:
                if self.closed:
                    raise EOFError
                return None
        event = self._events.popleft()
        if len(self._events) < self._limit:
            self._room.set()
        return event
