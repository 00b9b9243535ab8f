"""Rate limits that all replicas share, in Redis or Valkey: the same bucket, in one script and one round trip.

While the server is away each process counts alone, so that a tenant may get as many times its limit as there are
processes; nobody is refused for it. The server's clock is the one that counts.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

import redis.asyncio as redis
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from kgents.clock import Clock
from kgents.tenants.ratelimit import Decision, MemoryLimiter, blocked, decide

log = structlog.get_logger("kgents.tenants")

TICKS = 1000  # a second, in milliseconds: every number in the script stays exact in a double
TIMEOUT = 0.25  # seconds for one answer
PROBE_SECONDS = 0.5  # between two tries to reach a server that is away
MAX_CONNECTIONS = 64

Mode = Literal["take", "peek", "charge"]

# A level is kept with the time it was written at, and forgotten once it has drained. A clock that was set back would
# keep it from draining until that time comes again; so then it is written anew, whatever was asked.
SCRIPT = """
local mode, limit, cost = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local level, write = 0, false
local state = redis.call('GET', KEYS[1])
if state then
  local before, at = string.match(state, '^(%d+) (%d+)$')
  if now < tonumber(at) then write = true end
  level = math.max(0, tonumber(before) - math.max(0, now - tonumber(at)) * limit)
end
local wanted = cost
if mode ~= 'charge' then wanted = math.min(cost, limit) end
local after = math.min(level + wanted * 60000, 9007199254740992)
local allowed = 0
if mode == 'charge' or after <= limit * 60000 then allowed = 1 end
if mode ~= 'peek' and allowed == 1 then level, write = after, true end
if write then
  local drained = math.ceil(level / limit) + 1
  redis.call('SET', KEYS[1], string.format('%.0f %.0f', level, now), 'PX', string.format('%.0f', drained))
end
return {allowed, string.format('%.0f', level)}
"""


class RedisLimiter:
    """Counts in Redis; while that is away (silent for `timeout` seconds), in this process. Use it on one event loop."""

    def __init__(self, url: str, clock: Clock, *, timeout: float = TIMEOUT) -> None:
        try:
            pool = redis.BlockingConnectionPool.from_url(
                url,
                max_connections=MAX_CONNECTIONS,
                timeout=timeout,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                protocol=2,
                retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            )
        except ValueError:  # its text may hold a part of the URL, and so of the password
            raise ValueError("KGENTS_REDIS_URL is not a URL like redis://USER:PASSWORD@HOST:6379/0") from None
        self._client = redis.Redis.from_pool(pool)
        self._script = self._client.register_script(SCRIPT)
        self._timeout = timeout
        self._alone = MemoryLimiter(clock)
        self._recovery: asyncio.Task[None] | None = None
        self._charging: set[asyncio.Task[None]] = set()

    @property
    def degraded(self) -> bool:
        return self._recovery is not None

    async def check_requests(self, tenant_id: str, limit: int) -> Decision:
        if limit < 1:
            return blocked(limit)
        answer = await self._ask("take", "requests", tenant_id, limit, 1)
        if answer is None:
            return await self._alone.check_requests(tenant_id, limit)
        return decide(answer[1], 1, limit, TICKS, allowed=answer[0])

    async def check_tokens(self, tenant_id: str, limit: int, cost: int = 1) -> Decision:
        if limit < 1:
            return blocked(limit)
        answer = await self._ask("peek", "tokens", tenant_id, limit, cost)
        if answer is None:
            return await self._alone.check_tokens(tenant_id, limit, cost)
        return decide(answer[1], cost, limit, TICKS, allowed=answer[0])

    async def charge_tokens(self, tenant_id: str, limit: int, cost: int) -> None:
        if limit >= 1 and await self._ask("charge", "tokens", tenant_id, limit, max(0, cost)) is None:
            await self._alone.charge_tokens(tenant_id, limit, cost)

    def charge_soon(self, tenant_id: str, limit: int, cost: int) -> None:
        task = asyncio.create_task(self.charge_tokens(tenant_id, limit, cost), name="charge")
        self._charging.add(task)
        task.add_done_callback(self._charging.discard)

    async def ping(self) -> bool:
        """Whether the server answers and can be written to, asked just now."""
        try:
            await self._run("take", "probe", "", 1_000_000, 1)
        except (RedisError, OSError) as error:
            self._lost(error)
            return False
        return True

    async def close(self) -> None:
        if self._recovery is not None:
            self._recovery.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._recovery
        await self._client.aclose()

    async def _ask(self, mode: Mode, kind: str, tenant_id: str, limit: int, cost: int) -> tuple[bool, int] | None:
        if self._recovery is not None:
            return None
        try:
            return await self._run(mode, kind, tenant_id, limit, cost)
        except (RedisError, OSError) as error:
            self._lost(error)
            return None

    async def _run(self, mode: Mode, kind: str, tenant_id: str, limit: int, cost: int) -> tuple[bool, int]:
        key = f"kgents:limit:{{{tenant_id}}}:{kind}"
        async with asyncio.timeout(self._timeout):
            allowed, level = await self._script(keys=[key], args=[mode, limit, cost])
        return bool(allowed), int(level)

    def _lost(self, error: Exception) -> None:
        if self._recovery is None:
            log.warning("the rate limits' server is away; each process counts alone", error=type(error).__name__)
            self._recovery = asyncio.create_task(self._recover(), name="rate-limits-recovery")

    async def _recover(self) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            if await self.ping():
                log.info("the rate limits' server is back")
                self._recovery = None
                return
