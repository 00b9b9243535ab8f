"""SQL of usage events, balances and quotas."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping
from sqlalchemy.dialects import postgresql, sqlite

from kgents.clock import SECOND
from kgents.errors import Unprocessable
from kgents.ids import first_id
from kgents.store.bulk import Lookup, ManyRows, insert_many
from kgents.store.tables import balances, quotas, usage_events
from kgents.usage.model import METERS, Amounts, Balance, UsageEvent

Key = tuple[str, str]  # tenant id, period
DAY = 86_400 * SECOND


_INSERT_EVENTS = insert_many(usage_events, UsageEvent._fields)


def insert_events(connection: Connection, events: Sequence[UsageEvent]) -> None:
    """Insert; an event that is already there is an IntegrityError, since its work was recorded before."""
    _INSERT_EVENTS(connection, events)


_QUOTAS = Lookup((quotas.c.tenant_id, quotas.c.meter, quotas.c.monthly_limit), {"tenants": quotas.c.tenant_id})


def limits_of(connection: Connection, tenant_ids: Iterable[str]) -> dict[str, dict[str, int]]:
    """The monthly limits of those of the tenants that have any."""
    limits: dict[str, dict[str, int]] = {}
    for tenant_id, meter, limit in _QUOTAS(connection, tenants=list(tenant_ids)):
        limits.setdefault(tenant_id, {})[meter] = limit
    return limits


def _balances(*, lock: bool) -> Lookup:
    columns = [balances.c[f"{meter}_{kind}"] for kind in ("used", "reserved") for meter in METERS]
    return Lookup(
        (balances.c.tenant_id, balances.c.period, *columns),
        {"tenants": balances.c.tenant_id, "periods": balances.c.period},
        order_by=(balances.c.tenant_id, balances.c.period),
        lock=lock,
    )


_BALANCES, _LOCKED_BALANCES = _balances(lock=False), _balances(lock=True)


def balances_of(
    connection: Connection, keys: Collection[Key], limits: dict[str, dict[str, int]], *, lock: bool
) -> dict[Key, Balance]:
    """The balances of tenants' months, of those that have one. `lock` holds them to the transaction's end."""
    rows = (_LOCKED_BALANCES if lock else _BALANCES)(
        connection, tenants=sorted({key[0] for key in keys}), periods=sorted({key[1] for key in keys})
    )
    found: dict[Key, Balance] = {}
    for tenant_id, period, *quantities in rows:
        key = (tenant_id, period)
        if key in keys:
            used, reserved = Amounts(*quantities[: len(METERS)]), Amounts(*quantities[len(METERS) :])
            found[key] = Balance(*key, used, reserved, limits.get(tenant_id, {}))
    return found


def _upsert(dialect: Any) -> Any:
    statement = dialect.insert(balances)
    columns = [f"{meter}_{kind}" for kind in ("used", "reserved") for meter in METERS]
    return statement.on_conflict_do_update(
        index_elements=[balances.c.tenant_id, balances.c.period],
        set_={column: balances.c[column] + statement.excluded[column] for column in columns},
    )


_UPSERT = {
    name: ManyRows(_upsert(dialect), [column.name for column in balances.columns])
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}


def ensure_balances(connection: Connection, keys: Iterable[Key]) -> None:
    """Make the rows of these months, so that they can be locked."""
    add_to_balances(connection, {key: (Amounts(), Amounts()) for key in keys})


def add_to_balances(connection: Connection, deltas: dict[Key, tuple[Amounts, Amounts]]) -> None:
    """Add (used, reserved) to each balance. In the order of the keys, so that two transactions can't deadlock."""
    rows = [(*key, *used, *reserved) for key, (used, reserved) in sorted(deltas.items())]
    _UPSERT[connection.dialect.name](connection, rows)


def load_event(row: RowMapping) -> UsageEvent:
    """A usage event of its row."""
    return UsageEvent(
        row["event_id"],
        row["tenant_id"],
        row["meter"],
        row["quantity"],
        row["run_id"],
        row["agent_id"],
        row["model"],
        bool(row["estimated"]),
        row["occurred_at"],
    )


class Sum(NamedTuple):
    """What a meter counted in a piece of time (its start), for an agent or model where grouped by them."""

    tenant_id: str
    meter: str
    piece: int
    quantity: int
    agent: str | None
    model: str | None


def sums(
    connection: Connection,
    tenant_id: str | None,
    *,
    start: int,
    end: int,
    length: int,
    meters: Iterable[str],
    groups: Iterable[str],
    limit: int | None,
) -> list[Sum]:
    """Sums of the events in [start, end) by pieces of `length` microseconds since the epoch, in no order; at most
    `limit` of them. A tenant of None: all tenants. `groups` are of `agent` and `model`.
    """
    events = usage_events.c
    columns = {"agent": events.agent_id, "model": events.model}
    names = set(groups)
    grouped = [column for name, column in columns.items() if name in names]
    piece = (events.occurred_at - events.occurred_at % length).label("piece")
    quantity = sa.cast(sa.func.sum(events.quantity), sa.BigInteger).label("quantity")
    statement = (
        sa.select(
            usage_events.c.tenant_id,
            events.meter,
            piece,
            quantity,
            *((column if name in names else sa.null()).label(name) for name, column in columns.items()),
        )
        .where(events.occurred_at >= start, events.occurred_at < end, events.meter.in_(list(meters)))
        .group_by(events.tenant_id, events.meter, piece, *grouped)
        .limit(limit)
    )
    if tenant_id is not None:
        statement = statement.where(usage_events.c.tenant_id == tenant_id)
    return [Sum(*row) for row in connection.execute(statement)]


def totals(connection: Connection, *, start: int, end: int, length: int) -> dict[tuple[int, str], int]:
    """What each meter counted in [start, end) over all tenants, by the start of pieces of `length` microseconds and by
    meter; of runs that were asked for within a day before.

    Ids of events begin with their run's, which sort by time: so only as much of the table is read as is new.
    """
    oldest = first_id("run", max(0, start - DAY))
    piece = (usage_events.c.occurred_at - usage_events.c.occurred_at % length).label("piece")
    statement = (
        sa.select(piece, usage_events.c.meter, sa.cast(sa.func.sum(usage_events.c.quantity), sa.BigInteger))
        .where(
            usage_events.c.event_id >= oldest,
            usage_events.c.occurred_at >= start,
            usage_events.c.occurred_at < end,
        )
        .group_by(piece, usage_events.c.meter)
    )
    return {(int(start), meter): int(quantity) for start, meter, quantity in connection.execute(statement)}


def events_of(
    connection: Connection,
    tenant_id: str,
    *,
    start: int,
    end: int,
    after: str,
    limit: int,
    meter: str,
    run_id: str,
) -> list[UsageEvent]:
    """A tenant's events in [start, end), of a meter and of a run if these are not empty, oldest first. Raises
    Unprocessable for an `after` that is no event of the tenant's.
    """
    mine = usage_events.c.tenant_id == tenant_id
    statement = sa.select(usage_events)
    if after:
        query = sa.select(usage_events.c.occurred_at).where(mine, usage_events.c.event_id == after)
        since = connection.execute(query).scalar()
        if since is None:
            raise Unprocessable(f"There is no usage event {after!r} to go on after.", param="after")
        start = max(start, since)
        statement = statement.where(sa.or_(usage_events.c.occurred_at > since, usage_events.c.event_id > after))
    if meter:
        statement = statement.where(usage_events.c.meter == meter)
    if run_id:
        # Ids begin with the run's, so a run's events are found by their key; with the tenant compared in a way that no
        # index knows, since SQLite would take that of the tenant's events.
        mine = usage_events.c.tenant_id.concat("") == tenant_id
        statement = statement.where(
            usage_events.c.run_id == run_id,
            usage_events.c.event_id > f"{run_id}:",
            usage_events.c.event_id < f"{run_id};",
        )
    statement = statement.where(mine, usage_events.c.occurred_at >= start, usage_events.c.occurred_at < end)
    rows = connection.execute(
        statement.order_by(usage_events.c.occurred_at, usage_events.c.event_id).limit(limit)
    ).mappings()
    return [load_event(row) for row in rows]
