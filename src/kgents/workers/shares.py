"""What each tenant holds of a worker's slots, so that one who asks for much does not keep the others waiting."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress


class Shares:
    """A worker's slots, divided among the tenants whose runs it carries out, with one share left for who comes next.

    A tenant alone may hold half of the slots, each of two a third, and so on; at least one each.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._held: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def full(self, tenant_id: str) -> bool:
        """Whether the tenant holds what is its share now."""
        tenants = len(self._held) + (tenant_id not in self._held)
        return self._held[tenant_id] >= max(1, self._slots // (tenants + 1))

    def those_full(self) -> list[str]:
        """The tenants that hold what is their share now."""
        return [tenant_id for tenant_id in self._held if self.full(tenant_id)]

    def take(self, tenant_id: str) -> None:
        """Take a slot for the tenant, whatever its share is."""
        self._held[tenant_id] += 1

    def leave(self, tenant_id: str) -> None:
        """Give a slot of the tenant back."""
        self._held[tenant_id] -= 1
        if not self._held[tenant_id]:
            del self._held[tenant_id]
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def left(self, seconds: float) -> None:
        """Wait until somebody leaves a slot, for at most so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
