"""The outbox: what is to leave the database for the bus, written in the transaction of the work that it tells of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from kgents.store.bulk import insert_many
from kgents.store.tables import outbox

COUNT_LIMIT = 100_000  # a backlog is counted up to here, so that asking stays cheap


class NewRow(NamedTuple):
    """A message to send. `topic` is `usage` or `run`; `message_id` is what the bus stores once."""

    tenant_id: str
    topic: str
    message_id: str
    payload: str
    created_at: int


class OutboxRow(NamedTuple):
    """A message that waits, with its place in the order of writing."""

    seq: int
    tenant_id: str
    topic: str
    message_id: str
    payload: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many messages wait (at most COUNT_LIMIT are counted), and since when the oldest does (microseconds)."""

    count: int
    oldest_at: int | None


_INSERT = insert_many(outbox, NewRow._fields)


def add_many(connection: Connection, rows: Sequence[NewRow]) -> None:
    """Put messages into the outbox."""
    _INSERT(connection, rows)


_TAKE = sa.select(outbox).order_by(outbox.c.seq).limit(sa.bindparam("most")).with_for_update(skip_locked=True)


def take(connection: Connection, limit: int) -> list[OutboxRow]:
    """The oldest messages, which stay until they are deleted; on PostgreSQL those that no other transaction has taken,
    locked for this one.
    """
    return [OutboxRow(*row) for row in connection.execute(_TAKE, {"most": limit})]


_PART = 1000
_WAITING = (
    sa.select(outbox.c.seq, outbox.c.payload)
    .where(outbox.c.topic == sa.bindparam("topic"), outbox.c.seq > sa.bindparam("after"))
    .order_by(outbox.c.seq)
    .limit(_PART)
)


def waiting(connection: Connection, topic: str) -> Iterator[str]:
    """The payloads of a topic's messages, oldest first; they are read a part at a time."""
    after = 0
    while rows := connection.execute(_WAITING, {"topic": topic, "after": after}).all():
        yield from (row.payload for row in rows)
        after = rows[-1].seq


def holds(connection: Connection, topic: str, payloads: Sequence[str]) -> set[str]:
    """Those of the payloads that wait in a topic."""
    statement = sa.select(outbox.c.payload).where(outbox.c.topic == topic, outbox.c.payload.in_(payloads))
    return set(connection.execute(statement).scalars())


_DELETE = sa.delete(outbox).where(outbox.c.seq.in_(sa.bindparam("seqs", expanding=True)))


def delete(connection: Connection, seqs: Sequence[int]) -> None:
    """Forget messages that the bus has stored."""
    if seqs:
        connection.execute(_DELETE, {"seqs": list(seqs)})


def backlog(connection: Connection) -> Backlog:
    """What waits."""
    waiting = sa.select(outbox.c.seq).limit(COUNT_LIMIT).subquery()
    count = connection.execute(sa.select(sa.func.count()).select_from(waiting)).scalar_one()
    oldest = connection.execute(sa.select(outbox.c.created_at).order_by(outbox.c.seq).limit(1)).scalar_one_or_none()
    return Backlog(count, oldest)
