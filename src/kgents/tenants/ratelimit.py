"""Rate limits of tenants: requests and tokens a minute, by the generic cell rate algorithm (ITU-T I.371).

A tenant's bucket holds what it used; it drains at `limit` a minute and never holds more than `limit` by requests. So
any window of w seconds admits at most limit + w * limit / 60. The level is a whole number of 1/(60 * TICKS) units, of
which `limit` drain each tick: the arithmetic is exact, and the level keeps its meaning when the limit is changed.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from kgents.clock import Clock

TICKS = 1_000_000  # a second, in microseconds
SWEEP_FROM = 1024


class Decision(NamedTuple):
    """Whether to go on. `remaining` of `limit` is left; the bucket is empty after `reset` seconds; a refused caller
    may try again after `retry_after` seconds (0 when allowed).
    """

    allowed: bool
    limit: int
    remaining: int
    reset: int
    retry_after: int


class Limiter(Protocol):
    """Counts requests and tokens of tenants. `limit` is what a minute allows; a limit below 1 allows nothing."""

    @property
    def degraded(self) -> bool:
        """Whether each process counts alone, because what they share does not answer."""
        ...

    async def check_requests(self, tenant_id: str, limit: int) -> Decision:
        """Count one request, if there is room for it."""
        ...

    async def check_tokens(self, tenant_id: str, limit: int, cost: int = 1) -> Decision:
        """Whether there is room for `cost` tokens (or, for a larger cost, a full minute's worth), counting nothing."""
        ...

    async def charge_tokens(self, tenant_id: str, limit: int, cost: int) -> None:
        """Count tokens that were used. The bucket may overflow: then there is no room until that has drained."""
        ...

    def charge_soon(self, tenant_id: str, limit: int, cost: int) -> None:
        """`charge_tokens`, without waiting for it."""
        ...

    async def ping(self) -> bool:
        """Whether what processes share answers, asked just now."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


def decide(level: int, cost: int, limit: int, ticks: int, *, allowed: bool) -> Decision:
    """The decision for a bucket at `level`, in units of 1/(60 * ticks); `cost` is what a refused caller wanted."""
    unit = 60 * ticks
    drain = limit * ticks  # units a second
    room = limit * unit - level
    retry_after = 0 if allowed else max(1, -(-(min(cost, limit) * unit - room) // drain))
    return Decision(allowed, limit, max(0, room // unit), -(-level // drain), retry_after)


def blocked(limit: int) -> Decision:
    """The decision where nothing is allowed."""
    return Decision(False, max(0, limit), 0, 60, 60)


class _Buckets:
    """The levels of one kind of limit by tenant. A bucket that has drained is dropped: it equals a new one."""

    def __init__(self) -> None:
        self._state: dict[str, tuple[int, int, int]] = {}  # level, when, limit
        self._sweep_at = SWEEP_FROM

    def __len__(self) -> int:
        return len(self._state)

    def level(self, tenant_id: str, limit: int, now: int) -> int:
        """What the tenant's bucket holds at `now`."""
        state = self._state.get(tenant_id)
        if state is None:
            return 0
        level = state[0] - (now - state[1]) * limit
        return max(0, level)

    def put(self, tenant_id: str, level: int, limit: int, now: int) -> None:
        """Set the level."""
        self._state[tenant_id] = (level, now, limit)
        if len(self._state) >= self._sweep_at:
            self._sweep(now)

    def _sweep(self, now: int) -> None:
        self._state = {
            tenant_id: state for tenant_id, state in self._state.items() if state[0] > (now - state[1]) * state[2]
        }
        self._sweep_at = max(SWEEP_FROM, 2 * len(self._state))


class MemoryLimiter:
    """Counts in this process: for one machine, and for when what processes share is away."""

    degraded = False

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        self._requests = _Buckets()
        self._tokens = _Buckets()

    @property
    def size(self) -> int:
        """How many buckets are kept."""
        return len(self._requests) + len(self._tokens)

    async def check_requests(self, tenant_id: str, limit: int) -> Decision:
        if limit < 1:
            return blocked(limit)
        now = int(self._monotonic() * TICKS)
        level = self._requests.level(tenant_id, limit, now)
        after = level + 60 * TICKS
        if after > limit * 60 * TICKS:
            return decide(level, 1, limit, TICKS, allowed=False)
        self._requests.put(tenant_id, after, limit, now)
        return decide(after, 1, limit, TICKS, allowed=True)

    async def check_tokens(self, tenant_id: str, limit: int, cost: int = 1) -> Decision:
        if limit < 1:
            return blocked(limit)
        level = self._tokens.level(tenant_id, limit, int(self._monotonic() * TICKS))
        allowed = level + min(cost, limit) * 60 * TICKS <= limit * 60 * TICKS
        return decide(level, cost, limit, TICKS, allowed=allowed)

    async def charge_tokens(self, tenant_id: str, limit: int, cost: int) -> None:
        self.charge_soon(tenant_id, limit, cost)

    def charge_soon(self, tenant_id: str, limit: int, cost: int) -> None:
        if limit < 1:
            return
        now = int(self._monotonic() * TICKS)
        level = self._tokens.level(tenant_id, limit, now) + max(0, cost) * 60 * TICKS
        self._tokens.put(tenant_id, level, limit, now)

    async def ping(self) -> bool:
        return True

    async def close(self) -> None:
        pass


def open_limiter(redis_url: str | None, clock: Clock) -> Limiter:
    """The limiter of a URL such as `redis://HOST:6379/0` (Redis or Valkey), or one in memory without. Connects on
    first use. Raises ValueError for what is not such a URL.
    """
    if not redis_url:
        return MemoryLimiter(clock)
    from kgents.tenants.ratelimit_redis import RedisLimiter  # only who has a Redis pays for importing its client

    return RedisLimiter(redis_url, clock)
