"""The embedded meter's events: one SQLite file, each (source, id) once for ever, sums kept with them."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from kgents.meter.model import Event

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    source TEXT NOT NULL, id TEXT NOT NULL, type TEXT NOT NULL, subject TEXT NOT NULL,
    time INTEGER NOT NULL, ingested_at INTEGER NOT NULL, data TEXT,
    PRIMARY KEY (source, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS events_time ON events (time);
CREATE TABLE IF NOT EXISTS minutes (
    type TEXT NOT NULL, subject TEXT NOT NULL, minute INTEGER NOT NULL, agent TEXT NOT NULL, model TEXT NOT NULL,
    total INTEGER NOT NULL,
    PRIMARY KEY (type, subject, minute, agent, model)
) WITHOUT ROWID;
"""
_INSERT = (
    "INSERT INTO events (source, id, type, subject, time, ingested_at, data) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO NOTHING"
)
_ADD = (
    "INSERT INTO minutes (type, subject, minute, agent, model, total) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET total = total + excluded.total"
)
MINUTE = 60_000_000


@dataclass(slots=True)
class _Batch:
    events: Sequence[Event]
    now: int
    future: asyncio.Future[None]


class Storage:
    """Accepts events; what it has accepted is on disk. Batches that wait together share one commit."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._write = self._connect()
        self._write.executescript(_SCHEMA)
        self._queue: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="meter-write", daemon=True)
        self._thread.start()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=5.0, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    async def ingest(self, events: Sequence[Event], now: int) -> None:
        """Keep the events that are not there yet. On return they are on disk. Raises sqlite3.Error."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put(_Batch(events, now, future))
        await future

    async def sums(
        self,
        type_: str,
        *,
        start: int | None,
        end: int | None,
        subjects: Sequence[str],
        groups: dict[str, Sequence[str]],
    ) -> list[tuple[str, int, str, str, int]]:
        """(subject, minute, agent, model, total) of a meter's events whose minute lies in [start, end)."""
        where, values = ["type = ?"], [type_]
        for column, chosen in (("subject", subjects), *groups.items()):
            if chosen:
                where.append(f"{column} IN ({','.join('?' * len(chosen))})")
                values += list(chosen)
        bounds: list[Any] = []
        for comparison, bound in (("minute >= ?", start), ("minute < ?", end)):
            if bound is not None:
                where.append(comparison)
                bounds.append(bound)
        # The columns are ours; what was asked for is bound.
        sql = f"SELECT subject, minute, agent, model, total FROM minutes WHERE {' AND '.join(where)}"  # noqa: S608
        return await asyncio.to_thread(self._read, sql, (*values, *bounds))

    async def events(self, *, start: int, end: int, subject: str, id_: str, limit: int) -> list[tuple[Any, ...]]:
        """The latest events in [start, end), newest first, as (source, id, type, subject, time, ingested_at, data)."""
        where, values = ["time >= ?", "time < ?"], [start, end]
        for column, wanted in (("subject", subject), ("id", id_)):
            if wanted:
                where.append(f"{column} = ?")
                values.append(wanted)  # type: ignore[arg-type]
        sql = (
            "SELECT source, id, type, subject, time, ingested_at, data FROM events "  # noqa: S608
            f"WHERE {' AND '.join(where)} ORDER BY time DESC LIMIT ?"
        )
        return await asyncio.to_thread(self._read, sql, (*values, limit))

    async def subjects(self, type_: str) -> list[str]:
        """The subjects that a meter has counted."""
        sql = "SELECT DISTINCT subject FROM minutes WHERE type = ? ORDER BY subject"
        return [row[0] for row in await asyncio.to_thread(self._read, sql, (type_,))]

    def _read(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        connection = self._connect()
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    def close(self) -> None:
        """Finish what was accepted, and close the file."""
        self._queue.put(None)
        self._thread.join()
        self._write.close()

    def _loop(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            group, last = [first], False
            while len(group) < 64 and not last:
                try:
                    batch = self._queue.get_nowait()
                except queue.Empty:
                    break
                if batch is None:
                    last = True
                else:
                    group.append(batch)
            error = self._commit(group)
            for batch in group:
                batch.future.get_loop().call_soon_threadsafe(_settle, batch.future, error)
            if last:
                return

    def _commit(self, group: list[_Batch]) -> Exception | None:
        write = self._write
        try:
            write.execute("BEGIN IMMEDIATE")
            sums: dict[tuple[str, str, int, str, str], int] = {}
            for batch in group:
                for event in batch.events:
                    data = orjson.dumps(event.data).decode() if event.data is not None else None
                    row = (event.source, event.id, event.type, event.subject, event.time, batch.now, data)
                    if write.execute(_INSERT, row).rowcount and event.quantity:
                        key = (event.type, event.subject, event.time // MINUTE * MINUTE, *event.groups)
                        sums[key] = sums.get(key, 0) + event.quantity
            write.executemany(_ADD, [(*key, total) for key, total in sums.items()])
            write.execute("COMMIT")
        except sqlite3.Error as error:
            if write.in_transaction:
                write.execute("ROLLBACK")
            return error
        return None


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
