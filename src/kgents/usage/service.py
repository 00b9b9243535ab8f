"""Reading usage: sums by window and group, events, and what is left of the month."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from kgents.clock import SECOND, from_datetime, month_bounds, month_of
from kgents.store.tables import usage_events
from kgents.usage import repository
from kgents.usage.model import METERS, Balance, UsageEvent

Window = Literal["hour", "day", "month"]
Group = Literal["agent", "model"]
LENGTHS: dict[str, int] = {"hour": 3600 * SECOND, "day": 86_400 * SECOND}
MOST_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What a meter counted in a window (its start, in microseconds), for an agent or model where grouped by them."""

    tenant_id: str
    meter: str
    window_start: int
    agent: str | None
    model: str | None
    quantity: int


def window_of(moment: int, window: Window) -> int:
    """The start of the UTC window that a moment falls in."""
    if window == "month":
        return month_bounds(month_of(moment))[0]
    return moment // LENGTHS[window] * LENGTHS[window]


def query(
    connection: Connection,
    tenant_id: str | None,
    *,
    start: int,
    end: int,
    window: Window,
    meters: tuple[str, ...] = METERS,
    group_by: tuple[Group, ...] = (),
    most: int | None = MOST_ROWS,
) -> list[UsageRow]:
    """Exact sums of the events in [start, end) by UTC window, ordered by tenant, meter, window and group; at most
    `most` rows. A tenant of None: all tenants (in a transaction over all).
    """
    columns = {"agent": usage_events.c.agent_id, "model": usage_events.c.model}
    groups = [columns[name] for name in group_by]
    # A day is the finest piece that both a day and a month are made of.
    length = LENGTHS["hour" if window == "hour" else "day"]
    piece = (usage_events.c.occurred_at - usage_events.c.occurred_at % length).label("piece")
    statement = (
        sa.select(
            usage_events.c.tenant_id,
            usage_events.c.meter,
            piece,
            *groups,
            sa.cast(sa.func.sum(usage_events.c.quantity), sa.BigInteger),
        )
        .where(
            usage_events.c.occurred_at >= start,
            usage_events.c.occurred_at < end,
            usage_events.c.meter.in_(meters),
        )
        .group_by(usage_events.c.tenant_id, usage_events.c.meter, piece, *groups)
    )
    if tenant_id is not None:
        statement = statement.where(usage_events.c.tenant_id == tenant_id)
    sums: dict[tuple[str, str, int, str | None, str | None], int] = {}
    for tenant, meter, at, *rest in connection.execute(statement):
        named = dict(zip(group_by, rest[:-1], strict=True))
        key = (tenant, meter, window_of(at, window), named.get("agent"), named.get("model"))
        sums[key] = sums.get(key, 0) + int(rest[-1])
    ordered = sorted(sums.items(), key=lambda item: tuple(str(part) for part in item[0]))
    return [UsageRow(*key, quantity) for key, quantity in ordered[:most]]


def events(
    connection: Connection,
    tenant_id: str,
    *,
    start: int,
    end: int,
    after: str = "",
    limit: int = 20,
    meter: str = "",
    run_id: str = "",
) -> list[UsageEvent]:
    """The tenant's usage events in [start, end) in the order of their ids, after the given one."""
    statement = sa.select(usage_events).where(
        usage_events.c.tenant_id == tenant_id,
        usage_events.c.occurred_at >= start,
        usage_events.c.occurred_at < end,
        usage_events.c.event_id > after,
    )
    if meter:
        statement = statement.where(usage_events.c.meter == meter)
    if run_id:
        statement = statement.where(usage_events.c.run_id == run_id)
    rows = connection.execute(statement.order_by(usage_events.c.event_id).limit(limit)).mappings()
    return [repository.load_event(row) for row in rows]


def balance(connection: Connection, tenant_id: str, now: int) -> Balance:
    """The tenant's current month."""
    key = (tenant_id, month_of(now))
    limits = repository.limits_of(connection, [tenant_id])
    return repository.balances_of(connection, [key], limits, lock=False)[key]


def parse_moment(value: str) -> int:
    """Microseconds since the epoch of an RFC 3339 time, or of a day's UTC start. Raises ValueError."""
    moment = datetime.fromisoformat(value)
    if len(value) == 10:
        moment = moment.replace(tzinfo=UTC)
    return from_datetime(moment)
