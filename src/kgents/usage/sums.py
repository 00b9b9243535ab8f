"""SQL of what usage events add up to: kept by the hour for who asks often, or counted anew for who checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from kgents.clock import SECOND
from kgents.ids import first_id
from kgents.store.bulk import adding
from kgents.store.tables import usage_events, usage_hours
from kgents.usage.model import METERS, UsageEvent

HOUR = 3600 * SECOND
DAY = 24 * HOUR

_ADD = adding(usage_hours, METERS)
_PLACES = {meter: place for place, meter in enumerate(METERS)}


class Sum(NamedTuple):
    """What a meter counted in a piece of time (its start), for an agent or model where grouped by them."""

    tenant_id: str
    meter: str
    piece: int
    quantity: int
    agent: str | None
    model: str | None


def _start(moment: Any, length: int) -> Any:
    """The start of the piece of time that a moment is in: a number, or a column of them."""
    return moment - moment % length


def add_to_hours(connection: Connection, events: Sequence[UsageEvent]) -> None:
    """Add events that are new to the sums of their hours. In the order of the keys, so that two transactions can't
    deadlock.
    """
    found: dict[tuple[str, int, str, str], list[int]] = {}
    for event in events:
        key = (event.tenant_id, _start(event.occurred_at, HOUR), event.agent_id, event.model)
        amounts = found.get(key)
        if amounts is None:
            amounts = found[key] = [0] * len(METERS)
        amounts[_PLACES[event.meter]] += event.quantity
    _ADD[connection.dialect.name](connection, [(*key, *amounts) for key, amounts in sorted(found.items())])


def kept(
    connection: Connection,
    tenant_id: str,
    *,
    start: int,
    end: int,
    length: int,
    meters: Sequence[str],
    groups: Iterable[str],
    limit: int,
) -> list[Sum]:
    """Sums of a tenant's events in [start, end) by pieces of `length` microseconds since the epoch, which are hours or
    made of them, in no order; of at most `limit` pieces and groups. `groups` are of `agent` and `model`.

    They are the kept sums of whole hours, less the events of these hours that are outside: of a time up to now there
    are none of those after it. One statement, so that what is committed meanwhile is in both or in neither.
    """
    first, last = _start(start, HOUR), -_start(-end, HOUR)
    hours = usage_hours.c
    whole = sa.select(
        usage_hours.c.tenant_id,
        hours.hour.label("at"),
        hours.agent_id.label("agent"),
        hours.model,
        *(usage_hours.c[meter] for meter in METERS),
    ).where(usage_hours.c.tenant_id == tenant_id, hours.hour >= first, hours.hour < last)
    parts = [whole, *(_less(tenant_id, *edge) for edge in ((first, start), (end, last)) if edge[0] < edge[1])]
    table = sa.union_all(*parts).subquery()
    names = set(groups)
    grouped = [table.c[name] for name in ("agent", "model") if name in names]
    piece = _start(table.c.at, length).label("piece")
    amounts = [sa.cast(sa.func.sum(table.c[meter]), sa.BigInteger) for meter in meters]
    statement = (
        sa.select(
            piece,
            *((table.c[name] if name in names else sa.null()).label(name) for name in ("agent", "model")),
            *amounts,
        )
        .where(table.c.tenant_id == tenant_id)
        .group_by(piece, *grouped)
        .having(sa.or_(*(amount > 0 for amount in amounts)))
        .limit(limit)
    )
    return [
        Sum(tenant_id, meter, at, quantity, agent, model)
        for at, agent, model, *quantities in connection.execute(statement)
        for meter, quantity in zip(meters, quantities, strict=True)
        if quantity
    ]


def _less(tenant_id: str, start: int, end: int) -> sa.Select[tuple[str, int, str, str, int]]:
    """The events in [start, end), to be taken away."""
    events = usage_events.c
    return sa.select(
        usage_events.c.tenant_id,
        _start(events.occurred_at, HOUR).label("at"),
        events.agent_id.label("agent"),
        events.model,
        *(sa.case((events.meter == meter, -events.quantity), else_=0).label(meter) for meter in METERS),
    ).where(usage_events.c.tenant_id == tenant_id, events.occurred_at >= start, events.occurred_at < end)


def counted(connection: Connection, tenant_id: str | None, *, start: int, end: int, length: int) -> list[Sum]:
    """As `kept`, but of the events themselves, each of which is read, and of all tenants for a tenant of None."""
    events = usage_events.c
    piece = _start(events.occurred_at, length).label("piece")
    quantity = sa.cast(sa.func.sum(events.quantity), sa.BigInteger)
    statement = (
        sa.select(usage_events.c.tenant_id, events.meter, piece, quantity, sa.null(), sa.null())
        .where(events.occurred_at >= start, events.occurred_at < end)
        .group_by(events.tenant_id, events.meter, piece)
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
    piece = _start(usage_events.c.occurred_at, length).label("piece")
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
