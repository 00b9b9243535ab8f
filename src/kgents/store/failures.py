"""What a failure of the database means: it is away, two transactions got in each other's way, or neither."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable
from typing import TypeVar

import sqlalchemy as sa

from kgents.errors import Unavailable

T = TypeVar("T")

# https://www.sqlite.org/rescode.html: what says nothing about the statement, only about the file and its disk.
_SQLITE_AWAY = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOTADB,
}
# https://www.postgresql.org/docs/current/errcodes-appendix.html: no connection, a server that only reads (a standby),
# no login, no such database, out of disk or connections, locked for too long, told to stop, I/O error, internal error.
_POSTGRES_AWAY = ("08", "25006", "28", "3D", "53", "55P03", "57", "58", "XX")
_POSTGRES_COLLISION = ("40001", "40P01")  # serialization failure, deadlock


class Unconfirmed(OSError):
    """The database went away while it committed: the transaction is there whole or not at all, and nobody knows."""


def unavailable(error: BaseException) -> Unavailable:
    """The one translation of a database failure; the cause stays in the chain, for logs, not in the detail.

    Its code is `outcome-unknown` where the work may have been done, and `store-unavailable` where it was not.
    """
    if isinstance(error, Unconfirmed):
        failure = Unavailable(
            "The database did not say whether it has recorded this. Try again with the same Idempotency-Key, or look "
            "whether it is there before you send it again; operators: see /health/saas.",
            code="outcome-unknown",
            headers={"Retry-After": "2"},
        )
        failure.__cause__ = error
        return failure
    failure = Unavailable(
        "The database does not answer or can't be written to, so nothing was recorded and nothing was charged. "
        "Try again in a few seconds; operators: see /health/saas.",
        code="store-unavailable",
        headers={"Retry-After": "2"},
    )
    failure.__cause__ = error
    return failure


def draining() -> Unavailable:
    """The refusal of a store that is closed."""
    return Unavailable("This process is shutting down. Try again: another one will answer.", code="draining")


def is_outage(error: BaseException) -> bool:
    """Whether an exception says that the database is away, as against that a statement was refused."""
    if isinstance(error, sa.exc.TimeoutError | OSError):
        return True
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _SQLITE_AWAY  # the low byte is the primary code
    state = _sqlstate(error)
    if state:
        return state.startswith(_POSTGRES_AWAY)
    refused = sa.exc.IntegrityError | sa.exc.ProgrammingError | sa.exc.DataError | sa.exc.NotSupportedError
    return not isinstance(error, refused)


def is_busy(error: BaseException | None) -> bool:
    """Whether SQLite's error, as the driver raises it, says that another has the file."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_BUSY


def is_collision(error: BaseException) -> bool:
    """Whether the same work may well succeed when it is simply done again."""
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    # A table that was migrated since a statement was prepared: SQLAlchemy forgets the statement when it raises this.
    stale_plan = type(error.orig).__name__ == "InvalidCachedStatementError"
    return stale_plan or _sqlstate(error) in _POSTGRES_COLLISION


def is_write_in_read(error: BaseException) -> bool:
    """Whether a function that promised only to read tried to write: a mistake in it, not an outage."""
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    return getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY or _sqlstate(error) == "25006"


async def guard(work: Awaitable[T], *, only_reads: bool = False) -> T:
    """Await `work`, raising Unavailable for what says that the database is away."""
    try:
        return await work
    except Exception as error:
        if only_reads and is_write_in_read(error):
            raise
        if is_outage(error) or is_collision(error):
            raise unavailable(error) from error
        raise


def _sqlstate(error: sa.exc.DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""
