"""Comparing what ledger and meter counted over all tenants: cheap enough to do all the time.

It is a figure to watch. Where it is not 0, `reconcile` names the tenants and mends it; differences of two tenants that
cancel each other, and what the meter lacks of a run that waited for more than a day, are seen by that only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from kgents.clock import SECOND
from kgents.meter.client import MeterClient
from kgents.store.engine import Scope, Store
from kgents.usage import sums
from kgents.usage.model import METERS
from kgents.usage.sums import DAY, HOUR

MINUTE = 60 * SECOND
DELAY = 30 * SECOND  # what an event has, to get from the ledger to the meter, before it is missed there


Sums = dict[tuple[int, str], int]  # by the start of the hour and the meter


class Totals:
    """Remembers the hours that differed, so that a difference counts until it is mended."""

    def __init__(self, store: Store, meter: MeterClient) -> None:
        self._store = store
        self._meter = meter
        self._open: set[int] = set()
        self._compared_to = 0

    async def compare(self, now: int) -> dict[str, int]:
        """By meter, the units by which ledger and meter differ, added up without signs over hours: those that are new
        since the last call and the one before (the last day at the first call), and those that differed then.

        `now` is in microseconds; the last half minute is left out, and whole minutes only are compared. Raises
        Unavailable.
        """
        end = (now - DELAY) // MINUTE * MINUTE
        last = self._compared_to - HOUR if self._compared_to else end - DAY
        first = min(last, end) // HOUR * HOUR
        found = await self._between(first, end, new=True)
        for hour in sorted(hour for hour in self._open if hour < first):
            found |= await self._between(hour, hour + HOUR)
        self._open = {hour for hour, units in found.items() if any(units.values())}
        self._compared_to = end
        return {name: sum(units[name] for units in found.values()) for name in METERS}

    async def _between(self, start: int, end: int, *, new: bool = False) -> dict[int, dict[str, int]]:
        """The units by which they differ, by hour and meter. Of hours that are `new`, the sums of recent runs are
        enough where they agree: the usage of one that waited for longer is read where they don't.
        """
        # The meter first: what comes to it later can't look as if it had come from nowhere.
        metered: Counter[tuple[int, str]] = Counter()
        whole = end // HOUR * HOUR
        for name in METERS:
            if whole > start:
                for row in await self._meter.query(name, start=start, end=whole, window="HOUR"):
                    metered[row.start // HOUR * HOUR, name] += row.value
            if end > whole:
                for row in await self._meter.query(name, start=whole, end=end):
                    metered[whole, name] += row.value

        def differences(ledger: Sums) -> dict[int, dict[str, int]]:
            return {
                hour: {name: abs(ledger.get((hour, name), 0) - metered[hour, name]) for name in METERS}
                for hour in range(start, end, HOUR)
            }

        async def read(count: Callable[..., Sums], first: int, last: int) -> Sums:
            return await self._store.read(
                Scope.system(), lambda connection: count(connection, start=first, end=last, length=HOUR)
            )

        if not new:
            return differences(await read(sums.exact_totals, start, end))
        ledger = await read(sums.totals, start, end)
        found = differences(ledger)
        doubtful = [hour for hour, units in found.items() if any(units.values())]
        if not doubtful:
            return found
        first, last = min(doubtful), min(max(doubtful) + HOUR, end)
        exact = await read(sums.exact_totals, first, last)
        return differences({key: units for key, units in ledger.items() if not first <= key[0] < last} | exact)
