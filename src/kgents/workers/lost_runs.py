"""Queued runs whose message the bus has lost: found without a doubt, and sent again.

The bus may lose what it had stored (a stream purged or made anew, a disk that broke), and what is queued would stay
queued for ever with its reservation. The message of a queued run is in the outbox or in the queue. So when it has left
the outbox, it stands in the queue no later than the message that is the queue's last now. Once everything up to that
one has left the queue, a run that is still queued, at the same attempt, has no message. However long the backlog is,
nothing of it is sent twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from kgents.agents.ledger_ops import queue_row
from kgents.agents.runs import UNFINISHED
from kgents.bus.nats import Bus
from kgents.bus.streams import RUNS_STREAM
from kgents.clock import SECOND, Clock
from kgents.store import outbox
from kgents.store.engine import Scope, Store
from kgents.store.tables import runs

PATIENCE = 10.0  # seconds that a run may be queued before its message is asked about
MOST = 500  # runs that are asked about at a time
SAME_MESSAGE = 120  # seconds in which whoever sends a message again gives it one id: the bus's window for duplicates


class Queued(NamedTuple):
    """A queued run at its attempt, and the trace context that it was asked for in."""

    tenant_id: str
    run_id: str
    attempt: int
    context: str | None


class _Suspects(NamedTuple):
    """Queued runs whose messages were no later in the queue than `last`."""

    runs: frozenset[Queued]
    last: int


class LostRuns:
    """Looks for them at each `sweep`. Several may: the bus keeps one of their messages."""

    def __init__(self, store: Store, bus: Bus, clock: Clock) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._suspects: _Suspects | None = None

    async def sweep(self) -> int:
        """Send again what is known to be lost by now; answers how many. Raises Unavailable."""
        if self._suspects is None:
            await self._suspect()
            return 0
        queue = await self._bus.pending(RUNS_STREAM)
        if queue.last < self._suspects.last:  # the queue was made anew, and counts anew
            self._suspects = None
            await self._suspect()
            return 0
        if queue.first <= self._suspects.last:
            return 0
        suspects, now = self._suspects.runs, self._clock.now()
        lost = await self._store.write(Scope.system(), lambda connection: send_again(connection, suspects, now))
        self._suspects = None
        return lost

    async def _suspect(self) -> None:
        before = self._clock.now() - round(PATIENCE * SECOND)
        found = await self._store.read(Scope.system(), lambda connection: handed_over(connection, before))
        if found:
            # Read after the runs: what the relay sends meanwhile is no later than this.
            self._suspects = _Suspects(frozenset(found), (await self._bus.pending(RUNS_STREAM)).last)


def handed_over(connection: Connection, before: int) -> list[Queued]:
    """Queued runs that were asked for before that time and whose message has left the outbox, oldest first."""
    statement = (
        sa.select(runs.c.tenant_id, runs.c.run_id, runs.c.attempt, runs.c.traceparent)
        .where(UNFINISHED, runs.c.owner.is_(None), runs.c.status == "queued", runs.c.created_at < before)
        .order_by(runs.c.run_id)
        .limit(MOST)
    )
    return _without_message(connection, [Queued(*row) for row in connection.execute(statement)])


def send_again(connection: Connection, suspects: frozenset[Queued], now: int) -> int:
    """Put a message into the outbox for each of the runs that is queued as it was; answers how many."""
    statement = (
        sa.select(runs.c.tenant_id, runs.c.run_id, runs.c.attempt, runs.c.traceparent)
        .where(runs.c.run_id.in_([run.run_id for run in suspects]), runs.c.status == "queued")
        .order_by(runs.c.run_id)
        .with_for_update()
    )
    still = [run for run in (Queued(*row) for row in connection.execute(statement)) if run in suspects]
    lost = _without_message(connection, still)
    window = now // (SAME_MESSAGE * SECOND)
    outbox.add_many(
        connection,
        [_row(run, now)._replace(message_id=f"{run.run_id}:{run.attempt}:{window}") for run in lost],
    )
    return len(lost)


def _without_message(connection: Connection, queued: Sequence[Queued]) -> list[Queued]:
    """Those of the runs for which none waits in the outbox."""
    payloads = {run: {_row(run).payload, _row(run, traced=True).payload} for run in queued}
    every = [payload for either in payloads.values() for payload in either]
    waiting = outbox.holds(connection, "run", every) if every else set()
    return [run for run, either in payloads.items() if not either & waiting]


def _row(run: Queued, now: int = 0, *, traced: bool = False) -> outbox.NewRow:
    """A run's message, and as it is where the process that queued it recorded the trace."""
    return queue_row(run.tenant_id, run.run_id, run.attempt, now, context=run.context if traced else None)
