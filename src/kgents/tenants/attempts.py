"""How many wrong API keys an address may send.

No key can be guessed (its secret has 256 random bits); how often one may be tried, and what that costs, is bounded
nevertheless. The limit is an address's, never a key's: else anybody could lock a tenant out by its key's id, which is
no secret. Each process counts for itself.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

import structlog

from kgents.clock import Clock
from kgents.errors import RateLimited
from kgents.tenants.ratelimit import MemoryLimiter

log = structlog.get_logger("kgents.keys")

WRONG_A_MINUTE = 300
TOLD_SECONDS = 60.0  # between two lines in the log


class Attempts:
    """Counts wrong keys by where they come from. An address that is not known ("") is not limited: it may be all that a
    gateway forwards.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wrong = MemoryLimiter(clock)
        self._told_at = -TOLD_SECONDS

    async def refusal(self, source: str) -> RateLimited | None:
        """The refusal of a key that can't be checked without asking the database, if too many wrong ones came."""
        if not source:
            return None
        decision = await self._wrong.check_tokens(_customer(source), WRONG_A_MINUTE)
        return None if decision.allowed else self._told(source, decision.retry_after)

    async def failed(self, source: str) -> RateLimited | None:
        """Count a key that was wrong; answers the refusal if it is one too many."""
        refusal = await self.refusal(source)
        if source and refusal is None:
            self._wrong.charge_soon(_customer(source), WRONG_A_MINUTE, 1)
        return refusal

    def _told(self, source: str, retry_after: int) -> RateLimited:
        now = self._clock.monotonic()
        if now - self._told_at >= TOLD_SECONDS:
            self._told_at = now
            log.warning("many wrong API keys come from one address", address=source, limit=WRONG_A_MINUTE)
        return RateLimited(
            f"More than {WRONG_A_MINUTE} wrong API keys a minute come from your address. Check your key, and try again "
            f"in {retry_after} s.",
            code="wrong-keys",
            headers={"Retry-After": str(retry_after)},
        )


def _customer(source: str) -> str:
    """Whom an address stands for: itself, or, of IPv6, the /64 that a customer is given whole."""
    try:
        address = ip_address(source)
    except ValueError:
        return source
    return address.packed[:8].hex() if isinstance(address, IPv6Address) else source
