"""PostgreSQL over asyncpg, as a role that row-level security binds."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

from kgents.store.asyncpg_driver import KEPT, driver_of, execute
from kgents.store.bulk import together
from kgents.store.failures import Unconfirmed, draining, guard, is_outage
from kgents.store.groups import (
    GATHER,
    MAX_GROUP,
    LastGroups,
    Waiting,
    by_operation,
    ended_by_outage,
    halves,
    is_final,
    run_group,
    settle,
)
from kgents.store.interface import GroupOp, Observe, Scope, unobserved
from kgents.store.patience import Patience

if TYPE_CHECKING:
    import asyncpg

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")

LANES = 2  # groups in flight at once
ANSWER = 2.0  # seconds for a server to answer the first, trivial statement of a transaction
FAREWELL = 2.0  # seconds to close the connections

# The server ends what is left of a process that stands still or is cut off, so that its locks don't stay.
_SESSION = {
    "statement_timeout": "10000",
    "lock_timeout": "5000",
    "idle_in_transaction_session_timeout": "15000",
    "timezone": "UTC",
    # All statements look rows up by a key, and a connection keeps the plan of each. One that was made while a table was
    # new and small would read all of it, again and again, until the first ANALYZE.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # A scan that can't be avoided has a cost beyond all bounds with that, for which PostgreSQL would compile its plan
    # anew each time: 100 ms of CPU time for a statement of 0.1 ms.
    "jit": "off",
}

_IDS = re.compile(r"[\w.,*-]*", re.ASCII)


class PostgresStore:
    """A Store over a PostgreSQL database."""

    dialect = "postgresql"

    def __init__(self, url: sa.URL, observe: Observe = unobserved, *, pool_size: int = 10) -> None:
        self._observe = observe
        self._pool_size = pool_size
        self._engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=5,
            connect_args={"timeout": 3, "command_timeout": 15, "server_settings": _SESSION, **KEPT},
            # Transactions are begun and ended below: with their scope, that is a round trip less.
            isolation_level="AUTOCOMMIT",
            pool_reset_on_return=None,
        )
        sa.event.listen(self._engine.sync_engine, "reset", _roll_back)
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue()
        self._lanes: list[asyncio.Task[None]] = []
        self._closed = False
        self._last = LastGroups()

    async def read(self, scope: Scope, fn: Callable[[Connection], T]) -> T:
        if self._closed:
            raise draining()
        return await guard(self._transaction("BEGIN READ ONLY", scope, fn), only_reads=True)

    async def write(self, scope: Scope, fn: Callable[[Connection], T]) -> T:
        if self._closed:
            raise draining()
        return await guard(self._transaction("BEGIN", scope, fn))

    def submit(self, op: GroupOp[Item, Result], item: Item) -> asyncio.Future[Result]:
        if self._closed:
            raise draining()
        if not self._lanes:
            self._lanes = [asyncio.create_task(self._lane(), name=f"postgres-lane-{n}") for n in range(LANES)]
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(Waiting(op, item, future))
        return future

    def failing(self) -> BaseException | None:
        return self._last.failure()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._queue.join()
        for lane in self._lanes:
            lane.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)
        # A server that doesn't answer must not hold up the end of this process.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await self._engine.dispose()

    async def _transaction(self, begin: str, scope: Scope, fn: Callable[[Connection], T]) -> T:
        text = f"{begin}; {_scoped(scope)}"
        tries = self._pool_size
        while True:
            async with self._engine.connect() as connection:
                driver = driver_of(connection)
                # This shows as well whether the server is still there. Nothing was done before, so where pooled
                # connections prove dead (the server was restarted), there is a next one, and at last a new one. One on
                # which this was cut off, also by a cancellation, is nobody's any more.
                try:
                    async with Patience(ANSWER):
                        await execute(driver, text)
                except BaseException as error:
                    dead = driver.is_closed() and isinstance(error, Exception)
                    await connection.invalidate()
                    if not dead or not tries:
                        raise
                    tries -= 1
                    continue
                result = await connection.run_sync(fn)
                await _commit(connection, driver)
                return result

    async def _lane(self) -> None:
        several = False
        while True:
            group = [await self._queue.get()]
            if several:
                await asyncio.sleep(GATHER)
            while len(group) < MAX_GROUP and not self._queue.empty():
                group.append(self._queue.get_nowait())
            several = len(group) > 1
            # A transaction of several operations would lock rows once for each, and so in no one order: two lanes would
            # wait for each other until the server noticed, a second later.
            for part in by_operation(group):
                started = perf_counter()
                results = await self._commit(part)
                self._observe(len(part), perf_counter() - started)
                self._last.ended(part, results)
                settle(part, results)
            for _ in group:
                self._queue.task_done()

    async def _commit(self, group: list[Waiting], tries: int = 1) -> list[Any]:
        try:
            scope = Scope.tenants(waiting.op.tenant_of(waiting.item) for waiting in group)
            return await self._transaction("BEGIN", scope, lambda connection: _run(connection, group))
        except (Exception, asyncio.CancelledError) as error:
            if (lane := asyncio.current_task()) and lane.cancelling():
                raise
            # An operation that raises CancelledError has not cancelled this lane, which must go on serving the others.
            if is_final(error, len(group), tries):
                return [error] * len(group)
        if len(group) == 1:
            return await self._commit(group, tries + 1)
        first, second = halves(group)
        results = await self._commit(first)
        return results + ([results[-1]] * len(second) if ended_by_outage(results) else await self._commit(second))


def _run(connection: Connection, group: Sequence[Waiting]) -> list[Any]:
    with together(connection):
        return run_group(connection, group)


def _scoped(scope: Scope) -> str:
    # A SELECT, since pg_stat_statements has an entry for each text of a SET, until PostgreSQL 18.
    tenants, key = _quoted(scope.setting), _quoted(scope.key_id)
    return f"SELECT set_config('kgents.tenants', {tenants}, true), set_config('kgents.key_id', {key}, true)"


def _quoted(ids: str) -> str:
    """As a literal of SQL. What is no list of ids is nobody's."""
    return f"'{ids}'" if _IDS.fullmatch(ids) else "''"


async def _commit(connection: AsyncConnection, driver: asyncpg.Connection) -> None:
    """Commit. Raises Unconfirmed when the server went away before it answered, which it may do after it committed."""
    try:
        await execute(driver, "COMMIT")
    except BaseException as error:  # also a cancellation: whether it was carried out, only another connection can see
        await connection.invalidate()
        if is_outage(error):
            raise Unconfirmed("no answer to COMMIT") from error
        raise


def _roll_back(dbapi: DBAPIConnection, _record: ConnectionPoolEntry, state: PoolResetState) -> None:
    """What a connection that is given back has not committed is undone."""
    if not state.terminate_only and dbapi.driver_connection.is_in_transaction():
        dbapi.run_async(lambda driver: driver.execute("ROLLBACK"))
