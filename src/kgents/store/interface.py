"""What services need of SQL: functions that are given a connection inside a transaction, on either database.

A function `fn(connection)` is plain synchronous SQLAlchemy Core. Every transaction states its Scope. PostgreSQL's
row-level security enforces it; SQLite has none, so there the repositories' own filters (which are the same) are what
isolates tenants.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from kgents.errors import KgentsError

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")
ItemIn = TypeVar("ItemIn", contravariant=True)
ResultOut = TypeVar("ResultOut", covariant=True)

Observe = Callable[[int, float], None]


def unobserved(_group: int, _seconds: float) -> None:
    """What to tell of each committed group where nobody measures."""


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
        it. Any other exception rolls the whole group back, which is then tried again in halves until the item that
        fails is alone; so `apply` may see an item several times, but only once in a transaction that is committed. On
        PostgreSQL it runs in a `together` (bulk.py): what its ManyRows write, only a Lookup sees before it ends.
        """
        ...


class Store(Protocol):
    """What services need of SQL. A store belongs to the event loop that first uses it."""

    dialect: str

    async def read(self, scope: Scope, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in a transaction that can't write. Raises Unavailable when the database can't be reached."""
        ...

    async def write(self, scope: Scope, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in a transaction and commit it; whatever it raises rolls back what it did. It may be run again after
        a rollback, so it does nothing but SQL. Raises Unavailable when the database can't be reached or its disk is
        full: then nothing of it was kept, or (when the connection broke during the commit) it may have been.
        """
        ...

    def submit(self, op: GroupOp[Item, Result], item: Item) -> asyncio.Future[Result]:
        """Run `op` on `item` in a transaction shared with whatever else waits. The future is done once it is on disk;
        cancelling the future does not undo the work. Raises Unavailable when the store is closed.
        """
        ...

    def failing(self) -> BaseException | None:
        """Why the last group of some kind of `submit`'s operations was not kept, where the database was away or its
        disk full, and that was within the last seconds.
        """
        ...

    async def close(self) -> None:
        """Finish what was accepted and close the connections."""
        ...
