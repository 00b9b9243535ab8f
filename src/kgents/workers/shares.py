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
        self._waiting: dict[asyncio.Future[None], str] = {}  # in the order in which they came

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
        mine = (turn for turn, whose in self._waiting.items() if whose == tenant_id)
        turn = next(mine, None) or next(iter(self._waiting), None)
        if turn is not None:
            del self._waiting[turn]
            turn.set_result(None)

    async def left(self, tenant_id: str, seconds: float) -> None:
        """Wait, for the tenant, until somebody leaves a slot, for at most so many seconds. One of those who wait hears
        of a slot: who waits for the tenant that left it, or else who has waited longest.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = tenant_id
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await turn
        finally:
            self._waiting.pop(turn, None)
