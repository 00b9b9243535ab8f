"""asyncpg as it is: what SQLAlchemy does around a statement takes as long as the statement's round trip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

if TYPE_CHECKING:
    import asyncpg

KEPT = {"max_cached_statement_lifetime": 0, "max_cacheable_statement_size": 0}
"""What makes a connection keep its prepared statements, and the plans of each: for any time, and of any length."""

# https://www.postgresql.org/docs/current/errcodes-appendix.html: the classes of what a caller may look for.
_REFUSED = {"22": sa.exc.DataError, "23": sa.exc.IntegrityError, "42": sa.exc.ProgrammingError}


def driver_of(connection: AsyncConnection) -> asyncpg.Connection:
    """The driver's connection, of one that is open."""
    sync = connection.sync_connection
    assert sync is not None
    driver: asyncpg.Connection = sync.connection.driver_connection
    return driver


def fetch(connection: Connection, text: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
    """The rows of a statement with `$1` for the first value. Within the function of a transaction. Raises what
    SQLAlchemy raises.
    """
    adapted: Any = connection.connection.dbapi_connection
    with _translated(text):
        rows: Sequence[Sequence[Any]] = adapted.run_async(lambda driver: driver.fetch(text, *values))
    return rows


async def execute(driver: asyncpg.Connection, text: str) -> None:
    """Statements without values. Raises what SQLAlchemy raises."""
    with _translated(text):
        await driver.execute(text)


@contextmanager
def _translated(text: str) -> Iterator[None]:
    """Raises the driver's error as SQLAlchemy does; without the values, which may hold what a tenant said."""
    try:
        yield
    except Exception as error:  # the driver's are named only here: it is not imported where the database is SQLite
        import asyncpg

        if not isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | asyncpg.InternalClientError):
            raise
        kind = _REFUSED.get((getattr(error, "sqlstate", None) or "")[:2], sa.exc.DBAPIError)
        raise kind(text, None, error, hide_parameters=True) from error
