"""Comparing the ledger with the meter, and sending the meter what it misses."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
import sqlalchemy as sa
from sqlalchemy import Connection

from kgents.clock import month_bounds, month_of
from kgents.meter.client import MeterClient
from kgents.meter.model import WindowSize
from kgents.store import outbox
from kgents.store.engine import Scope, Store
from kgents.store.tables import usage_events
from kgents.usage import repository, service
from kgents.usage.ledger import cloud_event
from kgents.usage.model import METERS, UsageEvent
from kgents.usage.service import LENGTHS, Window

BATCH = 500
_SIZES: dict[Window, WindowSize] = {"hour": "HOUR", "day": "DAY", "month": "MONTH"}


@dataclass(frozen=True, slots=True)
class Difference:
    """Where ledger and meter disagree: a tenant's meter in the window that starts at `window_start` (microseconds)."""

    tenant_id: str
    meter: str
    window_start: int
    ledger: int
    metered: int

    @property
    def missing(self) -> int:
        """What the meter misses; negative where it has more than the ledger."""
        return self.ledger - self.metered


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome. `compared` windows agreed or are among `differences`; `in_flight` outbox messages were still on
    their way when the comparison began; `sent` events were sent again.
    """

    compared: int
    differences: list[Difference]
    in_flight: int
    sent: int = 0


async def reconcile(
    store: Store, meter: MeterClient, *, start: int, end: int, window: Window = "day", source: str, repair: bool = False
) -> Report:
    """Compare per tenant, meter and UTC window in [start, end), widened to whole windows.

    With `repair`, the events of windows in which the meter has too little are sent again under their own ids, which
    the meter counts once however often they come; then everything is compared anew. Raises Unavailable.
    """
    first = service.window_of(start, window)
    last = _ceiling(end, window)
    report = await _compare(store, meter, first, last, window)
    short = [difference for difference in report.differences if difference.missing > 0]
    if not (repair and short):
        return report
    sent = 0
    for difference in short:
        sent += await _send(store, meter, difference, window, source)
    after = await _compare(store, meter, first, last, window)
    return Report(after.compared, after.differences, after.in_flight, sent)


def _ceiling(moment: int, window: Window) -> int:
    floor = service.window_of(moment, window)
    return moment if floor == moment else _next(floor, window)


def _next(window_start: int, window: Window) -> int:
    return month_bounds(month_of(window_start))[1] if window == "month" else window_start + LENGTHS[window]


async def _compare(store: Store, meter: MeterClient, start: int, end: int, window: Window) -> Report:
    waiting = await store.read(Scope.system(), outbox.backlog)
    # The meter first: what comes to it later can't look as if it had come from nowhere.
    metered: dict[tuple[str, str, int], int] = {}
    for name in METERS:
        rows = await meter.query(name, start=start, end=end, window=_SIZES[window], group_by=["subject"])
        for row in rows:
            key = (row.subject or "", name, row.start)
            metered[key] = metered.get(key, 0) + row.value
    ledger: dict[tuple[str, str, int], int] = {}

    def sums(connection: Connection) -> None:
        for row in service.query(connection, None, start=start, end=end, window=window, most=None):
            ledger[row.tenant_id, row.meter, row.window_start] = row.quantity

    await store.read(Scope.system(), sums)
    keys = sorted(ledger.keys() | metered.keys())
    found = [Difference(*key, ledger.get(key, 0), metered.get(key, 0)) for key in keys]
    return Report(len(keys), [difference for difference in found if difference.missing], waiting.count)


async def _send(store: Store, meter: MeterClient, difference: Difference, window: Window, source: str) -> int:
    after, sent = "", 0
    end = _next(difference.window_start, window)
    while True:
        last = after

        def fetch(connection: Connection, last: str = last) -> list[UsageEvent]:
            statement = (
                sa.select(usage_events)
                .where(
                    usage_events.c.tenant_id == difference.tenant_id,
                    usage_events.c.meter == difference.meter,
                    usage_events.c.occurred_at >= difference.window_start,
                    usage_events.c.occurred_at < end,
                    usage_events.c.event_id > last,
                )
                .order_by(usage_events.c.event_id)
                .limit(BATCH)
            )
            return [repository.load_event(row) for row in connection.execute(statement).mappings()]

        events = await store.read(Scope.system(), fetch)
        if not events:
            return sent
        await meter.ingest(orjson.dumps([cloud_event(event, source=source) for event in events]))
        after, sent = events[-1].event_id, sent + len(events)
