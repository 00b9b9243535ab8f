"""Reading usage: sums by window and group, events, and what is left of the month."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import Connection

from kgents.clock import from_datetime, month_bounds, month_of
from kgents.errors import Unprocessable
from kgents.usage import repository, sums
from kgents.usage.model import METERS, NOTHING, Balance, UsageEvent
from kgents.usage.sums import DAY, HOUR, Sum

Window = Literal["hour", "day", "month"]
Group = Literal["agent", "model"]
LENGTHS: dict[str, int] = {"hour": HOUR, "day": DAY}
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
    tenant_id: str,
    *,
    start: int,
    end: int,
    window: Window,
    meters: tuple[str, ...] = METERS,
    group_by: tuple[Group, ...] = (),
) -> list[UsageRow]:
    """Exact sums of a tenant's events in [start, end) by UTC window, ordered by meter, window and group. Raises
    Unprocessable where there would be more than MOST_ROWS, since a part of them would be a wrong number.
    """
    pieces = 31 if window == "month" else 1
    found = sums.kept(
        connection,
        tenant_id,
        start=start,
        end=end,
        length=_piece(window),
        meters=meters,
        groups=group_by,
        limit=MOST_ROWS * pieces + 1,
    )
    rows = _by_window(found, window)
    if len(rows) > MOST_ROWS or len(found) > MOST_ROWS * pieces:
        raise Unprocessable(
            f"The answer would have more than {MOST_ROWS} rows. Ask for a shorter time, a longer window, one meter, or "
            "fewer groups.",
            code="too-many-rows",
        )
    return rows


def recount(connection: Connection, tenant_id: str | None, *, start: int, end: int, window: Window) -> list[UsageRow]:
    """As `query`, without groups, from the events themselves: for who checks what else is said of them. A tenant of
    None: all tenants (in a transaction over all).
    """
    return _by_window(sums.counted(connection, tenant_id, start=start, end=end, length=_piece(window)), window)


def _piece(window: Window) -> int:
    # A day is the finest piece that both a day and a month are made of.
    return LENGTHS["hour" if window == "hour" else "day"]


def _by_window(found: Iterable[Sum], window: Window) -> list[UsageRow]:
    quantities: dict[tuple[str, str, int, str | None, str | None], int] = {}
    for row in found:
        key = (row.tenant_id, row.meter, window_of(row.piece, window), row.agent, row.model)
        quantities[key] = quantities.get(key, 0) + row.quantity
    ordered = sorted(quantities.items(), key=lambda item: tuple(str(part) for part in item[0]))
    return [UsageRow(*key, quantity) for key, quantity in ordered]


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
    """The tenant's usage events in [start, end), oldest first, after the given one. Raises Unprocessable where that is
    none of the tenant's.
    """
    return repository.events_of(
        connection, tenant_id, start=start, end=end, after=after, limit=limit, meter=meter, run_id=run_id
    )


def balance(connection: Connection, tenant_id: str, now: int) -> Balance:
    """The tenant's current month."""
    key = (tenant_id, month_of(now))
    limits = repository.limits_of(connection, [tenant_id])
    found = repository.balances_of(connection, [key], limits)
    return found.get(key) or Balance(*key, NOTHING, NOTHING, limits.get(tenant_id, {}))


def parse_moment(value: str) -> int:
    """Microseconds since the epoch of an RFC 3339 time, or of a day's UTC start. Raises ValueError, also for a time
    that in UTC is not in the years 1 to 9999.
    """
    moment = datetime.fromisoformat(value)
    if len(value) == 10:
        moment = moment.replace(tzinfo=UTC)
    micros = from_datetime(moment)
    try:
        moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the time is not in the years 1 to 9999") from error
    return micros
