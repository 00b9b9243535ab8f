"""SQL of usage events, balances and quotas."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping

from kgents.errors import Unprocessable
from kgents.store.bulk import Lookup, adding, insert_many
from kgents.store.tables import balances, quotas, usage_events
from kgents.usage.model import METERS, Amounts, Balance, UsageEvent

Key = tuple[str, str]  # tenant id, period


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


_QUANTITIES = [balances.c[f"{meter}_{kind}"] for kind in ("used", "reserved") for meter in METERS]
_BALANCES = Lookup(
    (balances.c.tenant_id, balances.c.period, *_QUANTITIES),
    {"tenants": balances.c.tenant_id, "periods": balances.c.period},
)
_LIMITS = [
    sa.select(quotas.c.monthly_limit)
    .where(quotas.c.tenant_id == balances.c.tenant_id, quotas.c.meter == sa.literal_column(f"'{meter}'"))
    .scalar_subquery()
    .label(f"{meter}_limit")
    for meter in METERS
]
_HOLD = Lookup(
    (balances.c.tenant_id, balances.c.period, *_QUANTITIES, *_LIMITS),
    {"tenants": balances.c.tenant_id, "periods": balances.c.period},
    order_by=(balances.c.tenant_id, balances.c.period),
    lock=True,
)


def balances_of(
    connection: Connection, keys: Collection[Key], limits: Mapping[str, dict[str, int]]
) -> dict[Key, Balance]:
    """The balances of tenants' months, of those that have one, with these limits of the tenants."""
    rows = _BALANCES(connection, **_lists(keys))
    return {key: _balance(row, limits.get(key[0], {})) for row in rows if (key := (row[0], row[1])) in keys}


def hold_balances(connection: Connection, keys: Collection[Key]) -> dict[Key, Balance]:
    """The balances of tenants' months, of those that have one, held to the transaction's end; with their limits, since
    to ask for these first would be a round trip more.
    """
    found: dict[Key, Balance] = {}
    for row in _HOLD(connection, **_lists(keys)):
        if (key := (row[0], row[1])) in keys:
            limits = zip(METERS, row[-len(METERS) :], strict=True)
            found[key] = _balance(row, {meter: limit for meter, limit in limits if limit is not None})
    return found


def _lists(keys: Collection[Key]) -> dict[str, list[str]]:
    return {"tenants": sorted({key[0] for key in keys}), "periods": sorted({key[1] for key in keys})}


def _balance(row: Sequence[Any], limits: dict[str, int]) -> Balance:
    used, reserved = (Amounts(*row[at : at + len(METERS)]) for at in (2, 2 + len(METERS)))
    return Balance(row[0], row[1], used, reserved, limits)


_ADD = adding(balances, [f"{meter}_{kind}" for kind in ("used", "reserved") for meter in METERS])


def ensure_balances(connection: Connection, keys: Iterable[Key]) -> None:
    """Make the rows of these months, so that they can be locked."""
    add_to_balances(connection, {key: (Amounts(), Amounts()) for key in keys})


def add_to_balances(connection: Connection, deltas: dict[Key, tuple[Amounts, Amounts]]) -> None:
    """Add (used, reserved) to each balance. In the order of the keys, so that two transactions can't deadlock."""
    rows = [(*key, *used, *reserved) for key, (used, reserved) in sorted(deltas.items())]
    _ADD[connection.dialect.name](connection, rows)


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
