"""One way to reach SQL, on SQLite and on PostgreSQL."""

from __future__ import annotations

import sqlalchemy as sa

from kgents.errors import Unprocessable
from kgents.store.interface import GroupOp, Observe, Scope, Store, unobserved
from kgents.store.postgres import PostgresStore
from kgents.store.sqlite import SqliteStore


def parse_url(url: str) -> sa.URL:
    """A database's URL, with the driver that kgents uses. Raises Unprocessable for one that names no such database."""
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise _no_database() from None  # its message may hold the password
    if parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+asyncpg")
    if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed.set(drivername="sqlite")
    raise _no_database()


def _no_database() -> Unprocessable:
    return Unprocessable(
        "The database's URL can't be used. Set KGENTS_DATABASE_URL to sqlite:///FILE, or to "
        "postgresql://USER:PASSWORD@HOST/DATABASE with what is special in the password percent-encoded.",
        code="database-url",
    )


def open_store(url: str, observe: Observe = unobserved) -> SqliteStore | PostgresStore:
    """The store for a URL: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/DATABASE`. Connects on first use.

    `observe` is told the size and the seconds of each group that was committed. Raises Unprocessable for another URL.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return SqliteStore(parsed, observe)
    return PostgresStore(parsed, observe)


__all__ = ["GroupOp", "PostgresStore", "Scope", "SqliteStore", "Store", "open_store", "parse_url"]
