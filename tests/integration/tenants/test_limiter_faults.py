"""Rate limits that replicas share, and what happens while the server that they share is away."""

import signal
import time

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from kgents.clock import SystemClock
from kgents.tenants.ratelimit import open_limiter
from kgents.tenants.ratelimit_redis import RedisLimiter
from tests.support.waiting import eventually


@pytest.fixture
async def replicas(redis):
    made = [RedisLimiter(redis.url, SystemClock(), timeout=10) for _ in range(2)]
    yield made
    for limiter in made:
        await limiter.close()


async def test_replicas_share_a_limit(replicas):
    one, other = replicas
    await one.check_requests("ten_1", 2)
    await other.check_requests("ten_1", 2)

    assert not (await one.check_requests("ten_1", 2)).allowed
    assert not (await other.check_requests("ten_1", 2)).allowed


async def test_what_has_drained_is_forgotten(replicas, redis):
    limiter, _ = replicas
    await limiter.check_requests("ten_1", 6000)

    async with AsyncRedis.from_url(redis.url) as client:
        await eventually(lambda: _is_empty(client))


async def _is_empty(client):
    return await client.dbsize() == 0


async def test_requests_are_served_while_the_server_is_away(replicas, redis):
    limiter, _ = replicas
    redis.stop()

    assert (await limiter.check_requests("ten_1", 2)).allowed
    assert limiter.degraded


async def test_each_process_counts_alone_while_the_server_is_away(replicas, redis):
    limiter, _ = replicas
    redis.stop()
    await limiter.charge_tokens("ten_1", 2, 2)

    decisions = [await limiter.check_requests("ten_1", 2) for _ in range(3)]

    assert [decision.allowed for decision in decisions] == [True, True, False]
    assert not (await limiter.check_tokens("ten_1", 2)).allowed


async def test_ping_tells_that_the_server_is_away(replicas, redis):
    limiter, _ = replicas
    assert await limiter.ping()
    redis.stop()

    assert not await limiter.ping()


async def test_it_recovers_within_5_s_without_traffic(replicas, redis):
    limiter, _ = replicas
    redis.stop()
    await limiter.check_requests("ten_1", 2)

    redis.start()

    await eventually(lambda: not limiter.degraded, seconds=5)
    assert (await limiter.check_requests("ten_1", 2)).allowed


async def test_a_restart_between_two_requests_goes_unnoticed(replicas, redis):
    limiter, _ = replicas
    await limiter.check_requests("ten_1", 2)
    redis.stop()
    redis.start()

    await limiter.check_requests("ten_1", 2)

    assert not limiter.degraded


async def test_a_server_that_hangs_costs_one_request_a_moment_and_the_next_nothing(redis):
    limiter = open_limiter(redis.url, SystemClock())
    await limiter.check_requests("ten_1", 100)
    redis.process.send(signal.SIGSTOP)
    started = time.monotonic()

    await limiter.check_requests("ten_1", 100)
    between = time.monotonic()
    for _ in range(50):
        await limiter.check_requests("ten_1", 100)

    assert between - started < 1
    assert time.monotonic() - between < 0.2
    redis.process.send(signal.SIGCONT)
    await eventually(lambda: not limiter.degraded, seconds=5)
    assert [(await limiter.check_requests("ten_2", 9)).remaining for _ in range(3)] == [8, 7, 6]
    await limiter.close()


async def test_a_server_that_can_not_be_written_to_is_away(replicas, redis):
    limiter, _ = replicas
    with Redis.from_url(redis.url) as admin:
        admin.config_set("maxmemory-policy", "noeviction")
        admin.config_set("maxmemory", "1")
        assert (await limiter.check_requests("ten_1", 2)).allowed
        assert limiter.degraded
        admin.config_set("maxmemory", "0")

    await eventually(lambda: not limiter.degraded, seconds=5)


async def test_a_wrong_password_is_degraded_and_not_logged(redis, capsys):
    limiter = RedisLimiter(redis.url.replace(redis.password, "wrong-canary"), SystemClock())

    decision = await limiter.check_requests("ten_1", 2)
    await limiter.close()

    assert decision.allowed
    assert limiter.degraded
    assert "canary" not in "".join(capsys.readouterr())


async def test_a_flushed_script_is_loaded_again(replicas, redis):
    limiter, _ = replicas
    await limiter.check_requests("ten_1", 2)
    with Redis.from_url(redis.url) as admin:
        admin.script_flush()

    await limiter.check_requests("ten_1", 2)

    assert not limiter.degraded
