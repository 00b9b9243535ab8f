"""Comparing the ledger with the meter, and sending the meter what it misses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from sqlalchemy import Connection

from kgents.clock import from_rfc3339, month_bounds, month_of, to_rfc3339
from kgents.errors import Unprocessable
from kgents.meter.client import MeterClient
from kgents.meter.model import WindowSize
from kgents.store import outbox
from kgents.store.engine import Scope, Store
from kgents.usage import service
from kgents.usage.delivery import Refused, deliver
from kgents.usage.ledger import cloud_event
from kgents.usage.model import METERS, UsageEvent
from kgents.usage.service import LENGTHS, Window

BATCH = 500
_SIZES: dict[Window, WindowSize] = {"hour": "HOUR", "day": "DAY", "month": "MONTH"}

Key = tuple[str, str, int]  # tenant id, meter, start of the window


@dataclass(frozen=True, slots=True)
class Difference:
    """Where ledger and meter disagree: a tenant's meter in the window that starts at `window_start` (microseconds).

    `in_flight` is what the outbox still holds for it, and the meter therefore can't have. What is on the bus is not
    in it: that takes seconds, or as long as the bus or the meter is away.
    """

    tenant_id: str
    meter: str
    window_start: int
    ledger: int
    metered: int
    in_flight: int = 0

    @property
    def missing(self) -> int:
        """What the meter misses; negative where it has more than the ledger."""
        return self.ledger - self.metered


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome. `compared` windows agreed or are among `differences`; `in_flight` messages of usage waited in the
    outbox; `sent` events were sent again, of which the meter refused those in `refused`.
    """

    compared: int
    differences: list[Difference]
    in_flight: int
    sent: int = 0
    refused: Sequence[Refused] = ()


async def reconcile(
    store: Store,
    meter: MeterClient,
    *,
    start: int,
    end: int,
    window: Window = "day",
    source: str,
    tenants: Sequence[str] | None = None,
    repair: bool = False,
) -> Report:
    """Compare per tenant (of `tenants`, or every one), meter and UTC window in [start, end), widened to whole windows.

    With `repair`, the events of windows that differ are sent again under their own ids, which the meter counts once
    however often they come; then everything is compared anew. What the meter has too much stays: the ledger can't
    take it away. Raises Unavailable, and Unprocessable for an end whose window goes on after the year 9999.
    """
    first, last = _whole_windows(start, end, window)
    report = await _compare(store, meter, first, last, window, tenants)
    if not (repair and report.differences):
        return report
    sent = 0
    refused: list[Refused] = []
    for difference in report.differences:
        count, faults = await _send(store, meter, difference, window, source)
        sent += count
        refused += faults
    after = await _compare(store, meter, first, last, window, tenants)
    return Report(after.compared, after.differences, after.in_flight, sent, refused)


def _whole_windows(start: int, end: int, window: Window) -> tuple[int, int]:
    try:
        first, floor = service.window_of(start, window), service.window_of(end, window)
        last = end if floor == end else _next(floor, window)
        to_rfc3339(last)  # as the meter is asked
    except ValueError as error:
        raise Unprocessable(
            f"The {window} of {to_rfc3339(end)} ends after the year 9999. Compare up to an earlier time."
        ) from error
    return first, last


def _next(window_start: int, window: Window) -> int:
    return month_bounds(month_of(window_start))[1] if window == "month" else window_start + LENGTHS[window]


async def _compare(
    store: Store, meter: MeterClient, start: int, end: int, window: Window, tenants: Sequence[str] | None
) -> Report:
    # The meter first: what comes to it later can't look as if it had come from nowhere.
    metered: dict[Key, int] = {}
    for name in METERS:
        rows = await meter.query(
            name, start=start, end=end, window=_SIZES[window], subjects=tenants or (), group_by=["subject"]
        )
        for row in rows:
            key = (row.subject or "", name, row.start)
            metered[key] = metered.get(key, 0) + row.value

    wanted: Sequence[str | None] = tenants or [None]

    def read(connection: Connection) -> tuple[dict[Key, int], dict[Key, int], int]:
        ledger = {
            (row.tenant_id, row.meter, row.window_start): row.quantity
            for tenant in wanted
            for row in service.recount(connection, tenant, start=start, end=end, window=window)
        }
        return ledger, *_in_flight(connection, window)

    ledger, in_flight, messages = await store.read(Scope.system(), read)
    keys = sorted(key for key in ledger.keys() | metered.keys() if ledger.get(key) or metered.get(key))
    found = [Difference(*key, ledger.get(key, 0), metered.get(key, 0), in_flight.get(key, 0)) for key in keys]
    return Report(len(keys), [difference for difference in found if difference.missing], messages)


def _in_flight(connection: Connection, window: Window) -> tuple[dict[Key, int], int]:
    """What the outbox holds, and in how many messages."""
    found: dict[Key, int] = {}
    messages = 0
    for payload in outbox.waiting(connection, "usage"):
        messages += 1
        for event in orjson.loads(payload):
            moment = service.window_of(from_rfc3339(event["time"]), window)
            key = (event["subject"], event["type"].removeprefix("kgents."), moment)
            found[key] = found.get(key, 0) + event["data"]["quantity"]
    return found, messages


async def _send(
    store: Store, meter: MeterClient, difference: Difference, window: Window, source: str
) -> tuple[int, list[Refused]]:
    """Send a window's events to the meter; answers how many, and which it refused."""
    sent, after = 0, ""
    refused: list[Refused] = []
    end = _next(difference.window_start, window)
    while True:
        last = after

        def fetch(connection: Connection, last: str = last) -> list[UsageEvent]:
            return service.events(
                connection,
                difference.tenant_id,
                start=difference.window_start,
                end=end,
                meter=difference.meter,
                after=last,
                limit=BATCH,
            )

        events = await store.read(Scope.system(), fetch)
        if not events:
            return sent, refused
        refused += await deliver(meter, orjson.dumps([cloud_event(event, source=source) for event in events]))
        after, sent = events[-1].event_id, sent + len(events)
