"""The embedded meter's events: one SQLite file, each (source, id) once for ever, values kept with them."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import orjson

from kgents.errors import Unavailable
from kgents.meter import layout
from kgents.meter.layout import Tally
from kgents.meter.model import METERS, Event, Invalid, Meter, Reading

T = TypeVar("T")

MAX_GROUP = 64  # batches in one commit

_INSERT = (
    "INSERT INTO events (source, id, type, subject, time, ingested_at, data) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO NOTHING"
)
_Line = tuple[str, str, str, str, int, int, str | None]


@dataclass(slots=True)
class _Batch:
    """Events to keep. One without a future ends the writer; one without lines asks whether the file can be written."""

    lines: list[tuple[_Line, Sequence[Reading]]]
    future: asyncio.Future[None] | None


class Storage:
    """Accepts events; what it has accepted is on disk. Batches that wait together share one commit."""

    def __init__(self, path: Path, meters: Sequence[Meter] = METERS, *, now: int) -> None:
        """Open the file, making it if there is none. Raises Unavailable for a file that can't be used."""
        self.meters = tuple(meters)
        self._path = path
        self._write = layout.open_file(path, self.meters, now)
        self.ages = layout.ages(self._write)
        self._queue: queue.SimpleQueue[_Batch] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="meter-read")
        self._closed = False
        self._failing = False
        self._writer = threading.Thread(target=self._loop, name="meter-write", daemon=True)
        self._writer.start()

    async def ingest(self, events: Sequence[Event], now: int) -> None:
        """Keep the events whose (source, id) is not there yet, and count those. On return they are on disk.

        Raises Invalid for data that is nested too deeply, and Unavailable where the file can't be written to; then
        none of the events was kept.
        """
        try:
            lines = [((e.source, e.id, e.type, e.subject, e.time, now, _as_text(e.data)), e.readings) for e in events]
        except TypeError as error:
            raise Invalid("data is nested too deeply") from error
        await self._submit(lines)

    async def check(self) -> None:
        """Write to the disk, to know that it can be done. Raises Unavailable."""
        await self._submit([])

    async def check_if_failing(self) -> None:
        """As `check`, but only where the last write failed. Raises Unavailable."""
        if self._failing:
            await self.check()

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Call a function with a connection that sees one state of the file, off the event loop. Raises Unavailable."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, function)

    def close(self) -> None:
        """Finish what was accepted, and close the file."""
        self._closed = True
        self._queue.put(_Batch([], None))
        self._writer.join()
        self._readers.shutdown()
        self._write.close()

    def _read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        uri = self._path.absolute().as_uri() + "?mode=ro"
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=10.0, isolation_level=None)) as connection:
                connection.set_progress_handler(lambda: self._closed, 100_000)  # a long query does not delay the end
                connection.execute("BEGIN")
                return function(connection)
        except sqlite3.Error as error:
            raise Unavailable(f"The meter's file can't be read: {error}. Try again.", code="meter-file") from error

    async def _submit(self, lines: list[tuple[_Line, Sequence[Reading]]]) -> None:
        if self._closed:
            raise Unavailable("The meter is stopping. Try again.", code="meter-stopping")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put(_Batch(lines, future))
        await future

    def _loop(self) -> None:
        last = False
        while not last:
            group = [self._queue.get()]
            with suppress(queue.Empty):
                while len(group) < MAX_GROUP and group[-1].future is not None:
                    group.append(self._queue.get_nowait())
            if group[-1].future is None:
                last = True
                group.pop()
            if group:
                self._settle(group)

    def _settle(self, group: list[_Batch]) -> None:
        error = self._commit(group)
        if error is not None and len(group) > 1:
            # One that can't be kept must not be the others' failure.
            for batch in group:
                _answer(batch, self._commit([batch]))
            return
        for batch in group:
            _answer(batch, error)

    def _commit(self, group: list[_Batch]) -> Exception | None:
        write = self._write
        try:
            write.execute("BEGIN IMMEDIATE")
            tally = Tally()
            for batch in group:
                for line, readings in batch.lines:
                    if write.execute(_INSERT, line).rowcount:
                        tally.add(line[3], line[4], readings)
                if not batch.lines:
                    write.execute(f"PRAGMA user_version = {layout.VERSION}")  # writes a page, and changes nothing
            tally.write(write)
            write.execute("COMMIT")
        except Exception as error:  # whatever it is, the batches are told and the writer lives
            with suppress(sqlite3.Error):
                write.execute("ROLLBACK")
            self._failing = True
            return Unavailable(f"The meter's file can't be written to: {error}. Try again.", code="meter-file")
        self._failing = False
        return None


def _as_text(data: object) -> str | None:
    return None if data is None else orjson.dumps(data).decode()


def _answer(batch: _Batch, error: Exception | None) -> None:
    future = batch.future
    if future is None:
        return
    with suppress(RuntimeError):  # the loop of whoever asked has ended
        future.get_loop().call_soon_threadsafe(_resolve, future, error)


def _resolve(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
