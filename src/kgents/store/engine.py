"""One way to reach SQL, on SQLite and on PostgreSQL: functions that are given a connection inside a transaction.

A function `fn(connection)` is plain synchronous SQLAlchemy Core. On SQLite it runs on the one writer thread (or a
reader thread); on PostgreSQL it runs over asyncpg. Writes that wait at the same moment are committed as a group, so
that one fsync serves many requests: that is what makes `synchronous=FULL` affordable.

Every transaction states its Scope. PostgreSQL's row-level security enforces it; SQLite has none, so there the
repositories' own filters (which are the same) are what isolates tenants.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy import Connection, event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from kgents.errors import KgentsError, Unavailable

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")
ItemIn = TypeVar("ItemIn", contravariant=True)
ResultOut = TypeVar("ResultOut", covariant=True)

Observe = Callable[[int, float], None]

MAX_GROUP = 256
READERS = 4
LANES = 2  # groups in flight at once on PostgreSQL


def _unobserved(_group: int, _seconds: float) -> None:
    return


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose rows a transaction may touch."""

    setting: str
    key_id: str = ""

    @staticmethod
    def tenant(tenant_id: str) -> Scope:
        """One tenant's rows."""
        return Scope(tenant_id)

    @staticmethod
    def tenants(tenant_ids: Iterable[str]) -> Scope:
        """The rows of several tenants: a group of requests that are committed together."""
        return Scope(",".join(sorted(set(tenant_ids))))

    @staticmethod
    def key(key_id: str) -> Scope:
        """Only the API key of this id, and its tenant: before a request is authenticated."""
        return Scope("", key_id)

    @staticmethod
    def system() -> Scope:
        """Every tenant's rows: relay, sweeper, reconcile and platform administration."""
        return Scope("*")


class GroupOp(Protocol[ItemIn, ResultOut]):
    """Work that many requests do alike, so that a group of them costs a few statements."""

    def tenant_of(self, item: ItemIn) -> str:
        """The tenant whose rows `item` touches."""
        ...

    def apply(self, connection: Connection, items: Sequence[ItemIn]) -> Sequence[ResultOut | KgentsError]:
        """Do the work for all items; answer in their order. A KgentsError refuses one item and must leave no row of
        it. Any other exception rolls the whole group back, and each item is then tried in a transaction of its own.
        """
        ...


class Store(Protocol):
    """What services need of SQL."""

    dialect: str

    async def read(self, scope: Scope, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in a read transaction. Raises Unavailable when the database can't be reached."""
        ...

    async def write(self, scope: Scope, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in a transaction and commit it; whatever it raises rolls it back. Raises Unavailable when the
        database can't be reached or its disk is full: then nothing of it was kept, or (when the connection broke
        during the commit) it may have been.
        """
        ...

    def submit(self, op: GroupOp[Item, Result], item: Item) -> asyncio.Future[Result]:
        """Run `op` on `item` in a transaction shared with whatever else waits. The future is done once it is on disk;
        cancelling the future does not undo the work.
        """
        ...

    async def close(self) -> None:
        """Finish what was accepted and close the connections."""
        ...


def unavailable(error: BaseException) -> Unavailable:
    """The one translation of a database failure; the cause stays in the chain, for logs, not in the detail."""
    failure = Unavailable(
        "The database does not answer or can't be written to, so nothing was recorded and nothing was charged. "
        "Try again in a few seconds; operators: see /health/saas.",
        code="store-unavailable",
        headers={"Retry-After": "2"},
    )
    failure.__cause__ = error
    return failure


def is_outage(error: BaseException) -> bool:
    """Whether an exception says that the database is away, as against that a statement was refused."""
    if isinstance(error, sa.exc.IntegrityError | sa.exc.ProgrammingError | sa.exc.DataError):
        return False
    return isinstance(error, sa.exc.DBAPIError | sa.exc.TimeoutError | OSError | TimeoutError)


async def _guard(work: Awaitable[T]) -> T:
    try:
        return await work
    except Exception as error:
        if is_outage(error):
            raise unavailable(error) from error
        raise


@dataclass(slots=True)
class _Waiting:
    op: GroupOp[Any, Any]
    item: Any
    future: asyncio.Future[Any]


class _Call(Generic[T]):
    """A single `write` as a member of a group on SQLite, where there is one writer anyway."""

    def tenant_of(self, item: tuple[str, Callable[[Connection], T]]) -> str:
        return item[0]

    def apply(
        self, connection: Connection, items: Sequence[tuple[str, Callable[[Connection], T]]]
    ) -> Sequence[T | KgentsError]:
        results: list[T | KgentsError] = []
        for _, fn in items:
            try:
                with connection.begin_nested():
                    results.append(fn(connection))
            except KgentsError as error:
                results.append(error)
        return results


_CALL: _Call[Any] = _Call()


def _run_group(connection: Connection, group: Sequence[_Waiting]) -> list[Any]:
    by_op: dict[int, list[int]] = {}
    for index, waiting in enumerate(group):
        by_op.setdefault(id(waiting.op), []).append(index)
    results: list[Any] = [None] * len(group)
    for indexes in by_op.values():
        op = group[indexes[0]].op
        for index, result in zip(indexes, op.apply(connection, [group[index].item for index in indexes]), strict=True):
            results[index] = result
    return results


def _settle(group: Sequence[_Waiting], results: Sequence[Any]) -> None:
    for waiting, result in zip(group, results, strict=True):
        if waiting.future.done():
            continue  # the caller went away; what it asked for is committed all the same
        if isinstance(result, BaseException):
            waiting.future.set_exception(unavailable(result) if is_outage(result) else result)
        else:
            waiting.future.set_result(result)


class SqliteStore:
    """SQLite in WAL mode with `synchronous=FULL`: one writer thread, a few reader threads."""

    dialect = "sqlite"

    def __init__(self, url: str, observe: Observe = _unobserved) -> None:
        path = make_url(url).database
        if not path:
            raise ValueError("a SQLite database needs a file: sqlite:///path/to/kgents.db")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._writer = _sqlite_engine(url, "BEGIN IMMEDIATE", pool_size=1)
        self._reader = _sqlite_engine(url, "BEGIN", pool_size=READERS)
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(READERS, "sqlite-read")
        self._thread = threading.Thread(target=self._write_loop, name="sqlite-write", daemon=True)
        self._thread.start()
        self._closed = False
        self._observe = observe

    async def read(self, scope: Scope, fn: Callable[[Connection], T]) -> T:  # noqa: ARG002 - SQLite has no scopes
        def call() -> T:
            with self._reader.begin() as connection:
                return fn(connection)

        return await _guard(asyncio.get_running_loop().run_in_executor(self._readers, call))

    async def write(self, scope: Scope, fn: Callable[[Connection], T]) -> T:
        return cast("T", await self.submit(_CALL, (scope.setting, fn)))

    def submit(self, op: GroupOp[Item, Result], item: Item) -> asyncio.Future[Result]:
        if self._closed:
            raise Unavailable("This process is shutting down. Try again: another one will answer.", code="draining")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.put(_Waiting(op, item, future))
        return future

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._readers.shutdown(wait=True)
        self._writer.dispose()
        self._reader.dispose()

    def _write_loop(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            group, last = self._take(first)
            self._commit(group)
            if last:
                return

    def _take(self, first: _Waiting) -> tuple[list[_Waiting], bool]:
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

    def _commit(self, group: list[_Waiting]) -> None:
        started = perf_counter()
        try:
            with self._writer.begin() as connection:
                results = _run_group(connection, group)
        except Exception as error:
            alone = len(group) == 1 or is_outage(error)
            results = [error] * len(group) if alone else [self._alone(waiting) for waiting in group]
        self._observe(len(group), perf_counter() - started)
        group[0].future.get_loop().call_soon_threadsafe(_settle, group, results)

    def _alone(self, waiting: _Waiting) -> Any:
        try:
            with self._writer.begin() as connection:
                return _run_group(connection, [waiting])[0]
        except Exception as error:
            return error


def _sqlite_engine(url: str, begin: str, *, pool_size: int) -> sa.Engine:
    engine = sa.create_engine(
        url,
        poolclass=sa.pool.QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": 5.0, "isolation_level": None, "cached_statements": 512},
    )

    @event.listens_for(engine, "connect")
    def _connect(dbapi: Any, _record: Any) -> None:
        cursor = dbapi.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


class PostgresStore:
    """PostgreSQL over asyncpg, as a role that row-level security binds."""

    dialect = "postgresql"

    def __init__(self, url: str, observe: Observe = _unobserved, *, pool_size: int = 10) -> None:
        self._observe = observe
        self._engine: AsyncEngine = create_async_engine(
            make_url(url).set(drivername="postgresql+asyncpg"),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=5,
            pool_pre_ping=False,
            connect_args={
                "timeout": 3,
                "command_timeout": 15,
                "server_settings": {"statement_timeout": "10000", "lock_timeout": "5000", "timezone": "UTC"},
            },
        )
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._lanes: list[asyncio.Task[None]] = []
        self._closed = False

    async def read(self, scope: Scope, fn: Callable[[Connection], T]) -> T:
        return await _guard(self._transaction(scope, fn))

    async def write(self, scope: Scope, fn: Callable[[Connection], T]) -> T:
        return await _guard(self._transaction(scope, fn))

    def submit(self, op: GroupOp[Item, Result], item: Item) -> asyncio.Future[Result]:
        if self._closed:
            raise Unavailable("This process is shutting down. Try again: another one will answer.", code="draining")
        if not self._lanes:
            self._lanes = [asyncio.create_task(self._lane(), name=f"postgres-lane-{n}") for n in range(LANES)]
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Waiting(op, item, future))
        return future

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._queue.join()
            for lane in self._lanes:
                lane.cancel()
            await asyncio.gather(*self._lanes, return_exceptions=True)
            await self._engine.dispose()

    async def _transaction(self, scope: Scope, fn: Callable[[Connection], T]) -> T:
        def call(connection: Connection) -> T:
            connection.execute(_SET_SCOPE, {"tenants": scope.setting, "key": scope.key_id})
            return fn(connection)

        async with self._engine.begin() as connection:
            return await connection.run_sync(call)

    async def _lane(self) -> None:
        while True:
            group = [await self._queue.get()]
            while len(group) < MAX_GROUP and not self._queue.empty():
                group.append(self._queue.get_nowait())
            started = perf_counter()
            try:
                _settle(group, await self._commit(group))
            finally:
                self._observe(len(group), perf_counter() - started)
                for _ in group:
                    self._queue.task_done()

    async def _commit(self, group: list[_Waiting]) -> list[Any]:
        scope = Scope.tenants(waiting.op.tenant_of(waiting.item) for waiting in group)
        try:
            return await self._transaction(scope, lambda connection: _run_group(connection, group))
        except Exception as error:
            if len(group) == 1 or is_outage(error):
                return [error] * len(group)
        results: list[Any] = []
        for waiting in group:
            results.extend(await self._commit([waiting]))
        return results


_SET_SCOPE = sa.text("SELECT set_config('kgents.tenants', :tenants, true), set_config('kgents.key_id', :key, true)")


def open_store(url: str, observe: Observe = _unobserved) -> SqliteStore | PostgresStore:
    """The store for a URL: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/DATABASE`. Connects on first use.

    `observe` is told the size and the seconds of each group that was committed.
    """
    backend = make_url(url).get_backend_name()
    if backend == "sqlite":
        return SqliteStore(url, observe)
    if backend == "postgresql":
        return PostgresStore(url, observe)
    raise ValueError(f"no support for {backend!r} databases; use sqlite:///FILE or postgresql://...")


__all__ = ["GroupOp", "PostgresStore", "Scope", "SqliteStore", "Store", "open_store"]
