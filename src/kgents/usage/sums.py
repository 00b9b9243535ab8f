"""SQL of what usage events add up to: kept by the hour for who asks often, or counted anew for who checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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
# Events that are read in one statement: however many a tenant has, it ends well within the database's 10 s for it.
PART = 200_000

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
    """As `kept`, but of the events themselves, each of which is read, and of all tenants for a tenant of None.

    Several statements, each of a time of its own: what is committed meanwhile is in or not, and nothing twice.
    """
    events = usage_events.c
    piece = _start(events.occurred_at, length).label("piece")
    found: Counter[tuple[str, str, int]] = Counter()
    for tenant in _tenants(connection) if tenant_id is None else [tenant_id]:
        for first, last in _parts(connection, tenant, start, end):
            statement = (
                sa.select(piece, events.meter, sa.cast(sa.func.sum(events.quantity), sa.BigInteger))
                .where(usage_events.c.tenant_id == tenant, events.occurred_at >= first, events.occurred_at < last)
                .group_by(piece, events.meter)
            )
            for at, meter, quantity in connection.execute(statement):
                found[tenant, meter, int(at)] += int(quantity)
    return [Sum(*key, quantity, None, None) for key, quantity in found.items()]


_NEXT_TENANT = sa.select(sa.func.min(usage_events.c.tenant_id)).where(usage_events.c.tenant_id > sa.bindparam("last"))


def _tenants(connection: Connection) -> Iterator[str]:
    """Who has events, from one to the next in their index: those that were erased have theirs, too."""
    last: str | None = ""
    while (last := connection.execute(_NEXT_TENANT, {"last": last}).scalar_one()) is not None:
        yield last


def _parts(connection: Connection, tenant_id: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """[start, end) in pieces in each of which the tenant has about PART events."""
    events = usage_events.c
    while True:
        after = (
            sa.select(events.occurred_at)
            .where(usage_events.c.tenant_id == tenant_id, events.occurred_at >= start, events.occurred_at < end)
            .order_by(events.occurred_at)
            .offset(PART)
            .limit(1)
        )
        following = connection.execute(after).scalar_one_or_none()
        if following is None:
            yield start, end
            return
        last = max(following, start + 1)
        yield start, last
        start = last


def totals(connection: Connection, *, start: int, end: int, length: int) -> dict[tuple[int, str], int]:
    """What each meter counted in [start, end) over all tenants, by the start of pieces of `length` microseconds and by
    meter; of runs that were asked for within a day before.

    Ids of events begin with their run's, which sort by time: so only as much of the table is read as is new, in a
    statement for each hour of runs.
    """
    events = usage_events.c
    piece = _start(events.occurred_at, length).label("piece")
    found: Counter[tuple[int, str]] = Counter()
    oldest, newest = max(0, _start(start - DAY, HOUR)), _start(end, HOUR)
    for hour in range(oldest, newest + 1, HOUR):
        ids = usage_events.c.event_id >= first_id("run", hour)
        if hour < newest:
            ids &= usage_events.c.event_id < first_id("run", hour + HOUR)
        statement = (
            sa.select(piece, events.meter, sa.cast(sa.func.sum(events.quantity), sa.BigInteger))
            .where(ids, events.occurred_at >= start, events.occurred_at < end)
            .group_by(piece, events.meter)
        )
        for at, meter, quantity in connection.execute(statement):
            found[int(at), meter] += int(quantity)
    return dict(found)


def exact_totals(connection: Connection, *, start: int, end: int, length: int) -> dict[tuple[int, str], int]:
    """As `totals`, of all runs: by the times of the events, for one tenant after the other."""
    found: Counter[tuple[int, str]] = Counter()
    for row in counted(connection, None, start=start, end=end, length=length):
        found[row.piece, row.meter] += row.quantity
    return dict(found)
