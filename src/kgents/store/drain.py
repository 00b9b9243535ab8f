"""Emptying the outbox: what waits is handed to whoever sends it, and deleted once it is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import Connection
from sqlalchemy.util import await_only

from kgents.store import outbox
from kgents.store.interface import Scope, Store
from kgents.store.outbox import OutboxRow, Topic

Send = Callable[[Sequence[OutboxRow]], Awaitable[Sequence[int]]]


async def drain(store: Store, topic: Topic, most: int, send: Send) -> int:
    """Hand a topic's oldest messages to `send`, at most `most`, and delete those whose `seq` it answers; answers how
    many were handed over. Raises Unavailable, and what `send` raises; then they stay, and `send` gets them again.

    Several processes may drain. On PostgreSQL they share the messages: each holds its own in a transaction until they
    are sent, so `send` has to end within the 15 s after which the server ends an idle one (postgres.py). SQLite has
    one writer for everybody, which can't wait for the network, so there the same messages may be sent twice.
    """
    if store.dialect == "postgresql":

        def hold(connection: Connection) -> int:
            rows = outbox.take(connection, topic, most)
            if rows:
                outbox.delete(connection, await_only(send(rows)))
            return len(rows)

        return await store.write(Scope.system(), hold)
    rows = await store.read(Scope.system(), lambda connection: outbox.take(connection, topic, most))
    if rows:
        sent = await send(rows)
        if sent:
            await store.write(Scope.system(), lambda connection: outbox.delete(connection, sent))
    return len(rows)
