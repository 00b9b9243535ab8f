"""SQLite in WAL mode with `synchronous=FULL`: one writer thread, which commits groups, and a few reader threads."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy import Connection, event

from kgents.store import checkpoint
from kgents.store.bulk import driver_of, translated
from kgents.store.failures import draining, guard, is_busy, is_outage
from kgents.store.groups import (
    GATHER,
    MAX_GROUP,
    LastGroups,
    Waiting,
    ended_by_outage,
    halves,
    is_final,
    run_group,
    settle_soon,
)
from kgents.store.interface import GroupOp, Observe, Scope, unobserved

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")

READERS = 4
LOCK_WAIT = 5.0  # seconds that a writer waits for another process's transaction
_POLL = 0.0002
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "journal_size_limit=67108864")
# What is kept to undo one statement of a group would else be a file, made and removed with each that writes many pages.
_WRITER = ("busy_timeout=0", f"wal_autocheckpoint={checkpoint.MAX_PAGES}", "temp_store=MEMORY")


class SqliteStore:
    """A Store over a SQLite file, which several processes may share."""

    dialect = "sqlite"

    def __init__(self, url: sa.URL, observe: Observe = unobserved) -> None:
        self._observe = observe
        self._writer = _engine(url, _begin_write, *_WRITER, pool_size=1)
        self._reader = _engine(url, _begin_read, "query_only=ON", pool_size=READERS)
        self._connection: Connection | None = None  # the writer's, kept from group to group
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._checkpointer = checkpoint.Checkpointer(url.database or "")
        self._readers = ThreadPoolExecutor(READERS, "sqlite-read")
        self._last = LastGroups()
        self._thread = threading.Thread(target=self._write_loop, name="sqlite-write", daemon=True)
        self._thread.start()
        self._closed = False

    async def read(self, scope: Scope, fn: Callable[[Connection], T]) -> T:  # noqa: ARG002 - SQLite has no scopes
        def call() -> T:
            with self._reader.begin() as connection:
                return fn(connection)

        if self._closed:
            raise draining()
        return await guard(asyncio.get_running_loop().run_in_executor(self._readers, call), only_reads=True)

    async def write(self, scope: Scope, fn: Callable[[Connection], T]) -> T:  # noqa: ARG002 - SQLite has no scopes
        return cast("T", await self.submit(_CALL, fn))

    def submit(self, op: GroupOp[Item, Result], item: Item) -> asyncio.Future[Result]:
        if self._closed:
            raise draining()
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.put(Waiting(op, item, future))
        return future

    def failing(self) -> BaseException | None:
        return self._last.failure()

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            await asyncio.to_thread(self._finish)

    def _finish(self) -> None:
        self._thread.join()
        self._checkpointer.close()
        self._let_go()
        self._readers.shutdown(wait=True)
        self._reader.dispose()
        self._writer.dispose()  # the last connection to close folds the WAL back into the file

    def _write_loop(self) -> None:
        several = False
        while True:
            first = self._queue.get()
            if first is None:
                return
            if several:
                time.sleep(GATHER)
            group, last = self._take(first)
            several = len(group) > 1
            started = time.perf_counter()
            results = self._commit(group)
            self._observe(len(group), time.perf_counter() - started)
            self._last.ended(group, results)
            settle_soon(group, results)
            self._checkpointer.committed()
            if last:
                return

    def _take(self, first: Waiting) -> tuple[list[Waiting], bool]:
        group = [first]
        while len(group) < MAX_GROUP:
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                break
            if waiting is None:
                return group, True
            group.append(waiting)
        return group, False

    def _commit(self, group: list[Waiting]) -> list[Any]:
        try:
            connection = self._connection = self._connection or self._writer.connect()
            with connection.begin():
                results = run_group(connection, group)
                _check_open(connection)
                return results
        except BaseException as error:  # whatever it is, this thread must go on serving the others
            self._let_go()
            if is_final(error, len(group), tries=1):
                return [error] * len(group)
        first, second = halves(group)
        results = self._commit(first)
        return results + ([results[-1]] * len(second) if ended_by_outage(results) else self._commit(second))

    def _let_go(self) -> None:
        """Give up the connection, whatever state it is in."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()


class _Call(Generic[T]):
    """A single `write` as a member of a group: there is one writer anyway."""

    def tenant_of(self, item: Callable[[Connection], T]) -> str:  # noqa: ARG002 - SQLite has no scopes
        return ""

    def apply(self, connection: Connection, items: Sequence[Callable[[Connection], T]]) -> Sequence[Any]:
        results: list[Any] = []
        for fn in items:
            try:
                with connection.begin_nested():
                    results.append(fn(connection))
            except Exception as error:
                _check_open(connection)
                if is_outage(error):
                    raise
                results.append(error)
        return results


_CALL: _Call[Any] = _Call()


def _check_open(connection: Connection) -> None:
    # A full disk or an I/O error makes SQLite roll back by itself (https://www.sqlite.org/lang_transaction.html,
    # "Response To Errors Within A Transaction"). Should an operation have gone on after that, nothing more is kept.
    if not driver_of(connection).in_transaction:
        raise OSError("SQLite has rolled the transaction back")


def _engine(url: sa.URL, begin: Callable[[Connection], None], *more: str, pool_size: int) -> sa.Engine:
    engine = sa.create_engine(
        url,
        poolclass=sa.pool.QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": 5.0, "isolation_level": None, "cached_statements": 1024},
    )

    @event.listens_for(engine, "connect")
    def _connect(dbapi: Any, _record: Any) -> None:
        cursor = dbapi.cursor()
        for pragma in (*_PRAGMAS, *more):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    event.listen(engine, "begin", begin)
    return engine


def _begin_read(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_write(connection: Connection) -> None:
    # SQLite's own wait for the lock sleeps up to 100 ms between two looks, so that a busy process starves the others
    # for a second at a time; looking this often, it waits no longer than the other takes.
    deadline = time.monotonic() + LOCK_WAIT
    while True:
        try:
            driver_of(connection).execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise translated("BEGIN IMMEDIATE", error) from error
            time.sleep(_POLL)
        else:
            return
