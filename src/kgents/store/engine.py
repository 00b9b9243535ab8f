"""One way to reach SQL, on SQLite and on PostgreSQL."""

from __future__ import annotations

from sqlalchemy.engine import make_url

from kgents.store.interface import GroupOp, Observe, Scope, Store, unobserved
from kgents.store.postgres import PostgresStore
from kgents.store.sqlite import SqliteStore


def open_store(url: str, observe: Observe = unobserved) -> SqliteStore | PostgresStore:
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
