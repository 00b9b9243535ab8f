"""Comparing what ledger and meter counted over all tenants: cheap enough to do all the time.

It is a figure to watch. Where it is not 0, `reconcile` names the tenants and mends it; differences of two tenants that
cancel each other are seen by that only.
"""

from __future__ import annotations

from collections.abc import Iterable

from kgents.clock import SECOND
from kgents.meter.client import MeterClient
from kgents.store.engine import Scope, Store
from kgents.usage import repository
from kgents.usage.model import METERS

HOUR = 3600 * SECOND
MINUTE = 60 * SECOND
DELAY = 30 * SECOND  # what an event has, to get from the ledger to the meter, before it is missed there


class Totals:
    """Remembers the hours that differed, so that a difference counts until it is mended."""

    def __init__(self, store: Store, meter: MeterClient) -> None:
        self._store = store
        self._meter = meter
        self._open: set[int] = set()
        self._compared_to = 0

    async def compare(self, now: int) -> dict[str, int]:
        """By meter, the units by which ledger and meter differ, added up without signs over the hours that are new
        since the last call (the last day at the first) and those that differed then. `now` is in microseconds; the last
        half minute is left out, and whole minutes only are compared. Raises Unavailable.
        """
        end = (now - DELAY) // MINUTE * MINUTE
        first = min(self._compared_to or end - repository.DAY, end) // HOUR * HOUR
        hours = sorted(self._open | set(range(first, end, HOUR)))
        found = {hour: await self._of(hour, min(hour + HOUR, end)) for hour in hours}
        self._open = {hour for hour, units in found.items() if any(units.values())}
        self._compared_to = end
        return _added(found.values())

    async def _of(self, start: int, end: int) -> dict[str, int]:
        # The meter first: what comes to it later can't look as if it had come from nowhere.
        metered = {}
        for name in METERS:
            rows = await self._meter.query(name, start=start, end=end)
            metered[name] = sum(row.value for row in rows)
        ledger = await self._store.read(
            Scope.system(), lambda connection: repository.totals(connection, start=start, end=end)
        )
        return {name: abs(ledger.get(name, 0) - metered[name]) for name in METERS}


def _added(found: Iterable[dict[str, int]]) -> dict[str, int]:
    rows = list(found)
    return {name: sum(units[name] for units in rows) for name in METERS}
