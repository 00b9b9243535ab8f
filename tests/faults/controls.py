"""The negative controls: kgents without one of the things that keep its promises. A fault must then be found out."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Sequence
from typing import Any

from kgents import app
from kgents.agents.events import Channel
from kgents.agents.ledger_ops import Admit, Recorded
from kgents.agents.runner import RunTask
from kgents.api.admission import Admission, Place, _Flow
from kgents.billing.gateway import Gateway
from kgents.billing.model import Held
from kgents.bus.server import LocalNats
from kgents.bus.streams import USAGE_SUBJECT
from kgents.errors import Unavailable
from kgents.meter import storage
from kgents.meter.model import Event
from kgents.store import checkpoint, sqlite
from kgents.usage import repository
from kgents.usage.model import NOTHING, Amounts
from kgents.workers import meter_sink
from kgents.workers.lost_runs import LostRuns
from kgents.workers.relay import Pack, Relay


def without_unique_key() -> None:
    """The meter counts an event each time that it comes."""
    numbers = itertools.count()
    ingest = storage.Storage.ingest

    async def faulty(self: storage.Storage, events: Sequence[Event], now: int) -> None:
        await ingest(self, [event._replace(id=f"{event.id}#{next(numbers)}") for event in events], now)

    storage.Storage.ingest = faulty  # type: ignore[method-assign]


def impatient_without_unique_key() -> None:
    """As `no unique key`, where the bus waits for an acknowledgement for 2 s only."""
    without_unique_key()
    meter_sink.ACK_WAIT = 2.0


def without_acknowledgement() -> None:
    """The relay takes the usage that it has sent for stored."""
    sound = Relay._publish

    async def faulty(self: Relay, subject: str, packs: Sequence[Pack], failures: list[Exception]) -> list[int]:
        if subject != USAGE_SUBJECT:
            return await sound(self, subject, packs, failures)
        for _, payload, _ in packs:
            with contextlib.suppress(Unavailable):
                await self._bus.broadcast(subject, payload)
        return [row.seq for _, _, rows in packs for row in rows]

    Relay._publish = faulty  # type: ignore[method-assign]


def without_fsync() -> None:
    """SQLite says that a transaction is kept before it is on the disk, and nobody puts it there later."""
    sqlite._PRAGMAS = tuple(pragma.replace("FULL", "OFF") for pragma in sqlite._PRAGMAS)
    sound = checkpoint.Checkpointer._open

    def faulty(self: checkpoint.Checkpointer) -> sqlite3.Connection:
        connection = sound(self)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    checkpoint.Checkpointer._open = faulty  # type: ignore[method-assign]


def without_claims() -> None:
    """Nobody claims an Idempotency-Key."""
    Admit._claim_keys = lambda self, connection, items, results: {}  # type: ignore[method-assign]


def without_lock() -> None:
    """A balance is looked at, and not held, before it is drawn from."""

    def faulty(connection: Any, keys: Any) -> Any:
        return repository.balances_of(connection, keys, repository.limits_of(connection, {key[0] for key in keys}))

    repository.hold_balances = faulty
    repository.ensure_balances = lambda connection, keys: None  # this holds the rows, too


def with_lazy_bus() -> None:
    """nats-server acknowledges what it has not put on the disk, which is its default."""
    sound = LocalNats._configuration
    LocalNats._configuration = lambda *given: sound(*given).replace("sync_interval: always", "")  # type: ignore[method-assign]
    app.verify_durable = lambda url: None


def without_second_message() -> None:
    """What the bus has lost of its queue is not sent again."""

    async def nothing(self: LostRuns) -> int:
        return 0

    LostRuns.sweep = nothing  # type: ignore[method-assign]


def without_the_absent() -> None:
    """What a stream used is taken from those only who stay to its end."""
    sound = RunTask._record

    async def faulty(self: RunTask, *, used: Amounts, **values: Any) -> Recorded:
        channel: Channel | None = self._outlet._channel  # type: ignore[attr-defined]
        return await sound(self, used=NOTHING if channel and channel.closed else used, **values)

    RunTask._record = faulty  # type: ignore[method-assign,assignment]


def without_what_broke_off() -> None:
    """A model's answer that broke off costs nothing."""
    RunTask._estimate = lambda self, text: NOTHING  # type: ignore[method-assign]


def without_admission() -> None:
    """Everybody gets a place at once."""

    def faulty(self: Admission, name: str) -> Place:
        return self._seat(self._flows.setdefault(name, _Flow(name)))

    Admission.enter = faulty  # type: ignore[method-assign]


def without_looking_at_stripe() -> None:
    """What an invoice is at Stripe is taken for what it was when it was first read."""
    read = Gateway.get
    known: dict[str, Held | None] = {}

    async def faulty(self: Gateway, stripe_id: str) -> Held | None:
        if stripe_id not in known:
            known[stripe_id] = await read(self, stripe_id)
        return known[stripe_id]

    Gateway.get = faulty  # type: ignore[method-assign]


def without_looking_first() -> None:
    """Invoices are made at Stripe without a look at which are there."""

    async def faulty(_self: Gateway, _invoice_id: str, _customer_id: str) -> None:
        return None

    Gateway._find = faulty  # type: ignore[assignment, method-assign]


CONTROLS = {
    "no look at Stripe": without_looking_at_stripe,
    "no look before making": without_looking_first,
    "lazy bus": with_lazy_bus,
    "no admission": without_admission,
    "no claim": without_claims,
    "no lock": without_lock,
    "no second message": without_second_message,
    "no unique key": without_unique_key,
    "no unique key, impatient": impatient_without_unique_key,
    "no acknowledgement": without_acknowledgement,
    "lazy database": without_fsync,
    "no usage of the absent": without_the_absent,
    "no usage of what broke off": without_what_broke_off,
}
