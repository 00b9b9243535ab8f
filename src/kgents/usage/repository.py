"""SQL of usage events, balances and quotas."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

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
