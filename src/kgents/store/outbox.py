"""The outbox: what is to leave the database for the bus, written in the transaction of the work that it tells of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from kgents.store.bulk import Removal, insert_many
from kgents.store.tables import outbox

Topic = Literal["usage", "run"]

COUNT_LIMIT = 100_000  # a backlog is counted up to here, so that asking stays cheap


class NewRow(NamedTuple):
    """A message to send. `message_id` is what the bus stores once."""

    tenant_id: str
    topic: Topic
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
    """How many of something wait, and since when the oldest does (microseconds)."""

    count: int
    oldest_at: int | None

    def age(self, now: int) -> float:
        """For how many seconds the oldest has waited; 0 where nothing waits."""
        return 0.0 if self.oldest_at is None else max(0, now - self.oldest_at) / 1e6


_INSERT = insert_many(outbox, NewRow._fields)


def add_many(connection: Connection, rows: Sequence[NewRow]) -> None:
    """Put messages into the outbox."""
    _INSERT(connection, rows)


# In the words of the index on queued runs: few messages are of them, and they are found however much usage waits.
_OF: dict[Topic, sa.TextClause] = {"usage": sa.text("topic = 'usage'"), "run": sa.text("topic = 'run'")}
_TAKE = {
    topic: sa.select(outbox)
    .where(of)
    .order_by(outbox.c.seq)
    .limit(sa.bindparam("most"))
    .with_for_update(skip_locked=True)
    for topic, of in _OF.items()
}


def take(connection: Connection, topic: Topic, limit: int) -> list[OutboxRow]:
    """A topic's oldest messages, which stay until they are deleted; on PostgreSQL those that no other transaction has
    taken, locked for this one.
    """
    return [OutboxRow(*row) for row in connection.execute(_TAKE[topic], {"most": limit})]


_PART = 1000
_WAITING = {
    topic: sa.select(outbox.c.seq, outbox.c.payload)
    .where(of, outbox.c.seq > sa.bindparam("after"))
    .order_by(outbox.c.seq)
    .limit(_PART)
    for topic, of in _OF.items()
}


def waiting(connection: Connection, topic: Topic) -> Iterator[str]:
    """The payloads of a topic's messages, oldest first; they are read a part at a time."""
    after = 0
    while rows := connection.execute(_WAITING[topic], {"after": after}).all():
        yield from (row.payload for row in rows)
        after = rows[-1].seq


def holds(connection: Connection, topic: Topic, payloads: Sequence[str]) -> set[str]:
    """Those of the payloads that wait in a topic."""
    statement = sa.select(outbox.c.payload).where(_OF[topic], outbox.c.payload.in_(payloads))
    return set(connection.execute(statement).scalars())


_DELETE = Removal(sa.delete(outbox), outbox.c.seq)


def delete(connection: Connection, seqs: Sequence[int]) -> None:
    """Forget messages that the bus has stored."""
    if seqs:
        _DELETE(connection, seqs)


def backlog(connection: Connection) -> Backlog:
    """What waits; at most COUNT_LIMIT are counted."""
    waiting = sa.select(outbox.c.seq).limit(COUNT_LIMIT).subquery()
    count = connection.execute(sa.select(sa.func.count()).select_from(waiting)).scalar_one()
    oldest = connection.execute(sa.select(outbox.c.created_at).order_by(outbox.c.seq).limit(1)).scalar_one_or_none()
    return Backlog(count, oldest)
