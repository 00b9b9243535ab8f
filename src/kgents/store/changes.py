"""The feed of changes by which every process learns what of its caches is stale, within a second."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa
import structlog
from sqlalchemy import Connection

from kgents.clock import Clock
from kgents.errors import Unavailable
from kgents.store.engine import Scope, Store
from kgents.store.tables import cache_changes

log = structlog.get_logger(__name__)

INTERVAL = 0.25  # seconds between two polls
FRESH = 0.9  # seconds after which what is cached is not trusted any more
# On PostgreSQL a transaction may commit after one that took a later number; statements there end within 10 s, so
# going back to the number that was the highest this long ago misses none. Only this process's own monotonic clock
# counts, since the clocks of hosts may differ.
TRAILING = 30.0
KEPT = 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was changed: `kind` is `api_key`, `tenant` or `agent`, `ref` its id or name."""

    seq: int
    tenant_id: str
    kind: str
    ref: str


def announce(connection: Connection, tenant_id: str, kind: str, ref: str, now: int) -> None:
    """Tell every process, once the transaction commits."""
    connection.execute(sa.insert(cache_changes), {"tenant_id": tenant_id, "kind": kind, "ref": ref, "created_at": now})


def poll(connection: Connection, after: int) -> list[Change]:
    """The changes with a higher number than `after`, in their order."""
    statement = (
        sa.select(cache_changes.c.seq, cache_changes.c.tenant_id, cache_changes.c.kind, cache_changes.c.ref)
        .where(cache_changes.c.seq > after)
        .order_by(cache_changes.c.seq)
    )
    return [Change(*row) for row in connection.execute(statement)]


def prune(connection: Connection, seen: int) -> tuple[int, int]:
    """Drop announcements up to this number; answers how many, and the highest number now."""
    dropped = connection.execute(sa.delete(cache_changes).where(cache_changes.c.seq <= seen)).rowcount
    return dropped, connection.execute(sa.select(sa.func.max(cache_changes.c.seq))).scalar_one() or 0


class Pruner:
    """Drops announcements that every process has long heard: those that were there already when it last did so, KEPT
    seconds ago by its own monotonic clock. Several may prune; one that lives for less than that drops none.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._seen = 0  # the highest number then
        self._at = float("-inf")

    async def prune(self) -> int:
        """Drop what is due; answers how many. Raises Unavailable."""
        if self._clock.monotonic() - self._at < KEPT:
            return 0
        seen = self._seen

        dropped, self._seen = await self._store.write(Scope.system(), lambda connection: prune(connection, seen))
        self._at = self._clock.monotonic()  # not before they were seen
        return dropped


class ChangeFeed:
    """Polls for changes and tells those who cache."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._tell: list[Callable[[Change], None]] = []
        self._forget: list[Callable[[], None]] = []
        self._heard: set[int] = set()
        self._highest: deque[tuple[float, int]] = deque()  # (when, the highest number then), oldest first
        self._after = 0
        self._polled = float("-inf")

    def subscribe(self, tell: Callable[[Change], None], forget: Callable[[], None]) -> None:
        """Have `tell` called with each change, once; and `forget` when changes may have been missed, since this
        process stood still for longer than they are kept.
        """
        self._tell.append(tell)
        self._forget.append(forget)

    def fresh(self) -> bool:
        """Whether everything that was committed until a moment ago has been heard."""
        return self._clock.monotonic() - self._polled < FRESH

    async def poll(self) -> None:
        """Hear what is new. Raises Unavailable."""
        started = self._clock.monotonic()
        if started - self._polled > KEPT / 2:
            for forget in self._forget:
                forget()
        after = self._after
        changes = await self._store.read(Scope.system(), lambda connection: poll(connection, after))
        for change in changes:
            if change.seq not in self._heard:
                self._heard.add(change.seq)
                for tell in self._tell:
                    tell(change)
        self._polled = started
        self._advance(started, changes[-1].seq if changes else after)

    def _advance(self, now: float, highest: int) -> None:
        self._highest.append((now, max(highest, self._highest[-1][1] if self._highest else 0)))
        while len(self._highest) > 1 and self._highest[0][0] < now - TRAILING:
            self._after = self._highest.popleft()[1]
        self._heard = {seq for seq in self._heard if seq > self._after}

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            try:
                await self.poll()
            except Unavailable:
                log.warning("changes can't be heard: the database is away, caches are not used")
            await asyncio.sleep(INTERVAL)
