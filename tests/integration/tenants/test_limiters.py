"""What every limiter promises: one suite for the one in memory and the one in Redis, with real time."""

import asyncio
import time

import pytest

from kgents.clock import SystemClock
from kgents.tenants.ratelimit import MemoryLimiter
from kgents.tenants.ratelimit_redis import RedisLimiter
from tests.support.waiting import eventually


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def limiter(request):
    if request.param == "redis":
        limiter = RedisLimiter(request.getfixturevalue("redis").url, SystemClock(), timeout=10)
    else:
        limiter = MemoryLimiter(SystemClock())
    yield limiter
    assert not limiter.degraded
    await limiter.close()


async def requests(limiter, limit, count, tenant="ten_1"):
    return [await limiter.check_requests(tenant, limit) for _ in range(count)]


async def test_a_minutes_worth_is_admitted_at_once(limiter):
    decisions = await requests(limiter, 5, 5)

    assert all(decision.allowed for decision in decisions)


async def test_the_next_one_is_refused(limiter):
    decisions = await requests(limiter, 5, 6)

    assert not decisions[-1].allowed


async def test_what_remains_is_counted_down(limiter):
    decisions = await requests(limiter, 5, 6)

    assert [decision.remaining for decision in decisions] == [4, 3, 2, 1, 0, 0]


async def test_the_limit_is_told(limiter):
    assert (await limiter.check_requests("ten_1", 5)).limit == 5


async def test_the_time_until_everything_is_free_again_is_told(limiter):
    decisions = await requests(limiter, 5, 2)

    assert 10 <= decisions[0].reset <= 12
    assert 22 <= decisions[1].reset <= 24


async def test_a_refusal_says_when_to_try_again(limiter):
    decisions = await requests(limiter, 5, 6)

    assert [decision.retry_after for decision in decisions[:5]] == [0, 0, 0, 0, 0]
    assert 10 <= decisions[5].retry_after <= 12


async def test_a_refusal_counts_nothing(limiter):
    await requests(limiter, 5, 50)

    assert (await limiter.check_requests("ten_1", 5)).retry_after <= 12


async def test_room_comes_back_with_time(limiter):
    await requests(limiter, 600, 600)

    await eventually(lambda: requests_go_through(limiter), seconds=2)


async def requests_go_through(limiter):
    return (await limiter.check_requests("ten_1", 600)).allowed


async def test_tenants_do_not_share(limiter):
    await requests(limiter, 1, 2, "ten_1")

    assert (await limiter.check_requests("ten_2", 1)).allowed


async def test_requests_and_tokens_do_not_share(limiter):
    await requests(limiter, 1, 2)

    assert (await limiter.check_tokens("ten_1", 1)).allowed


async def test_a_raised_limit_counts_at_once(limiter):
    await requests(limiter, 1, 2)

    assert (await limiter.check_requests("ten_1", 10)).allowed


async def test_a_lowered_limit_counts_at_once(limiter):
    await requests(limiter, 100, 50)

    assert not (await limiter.check_requests("ten_1", 10)).allowed


async def test_asking_for_tokens_uses_none(limiter):
    for _ in range(10):
        await limiter.check_tokens("ten_1", 5, 5)

    assert (await limiter.check_tokens("ten_1", 5, 5)).allowed


async def test_tokens_are_refused_once_they_are_used_up(limiter):
    await limiter.charge_tokens("ten_1", 100, 100)

    assert not (await limiter.check_tokens("ten_1", 100)).allowed


async def test_more_tokens_may_be_charged_than_there_were(limiter):
    await limiter.charge_tokens("ten_1", 60, 180)

    decision = await limiter.check_tokens("ten_1", 60)

    assert (decision.allowed, decision.remaining) == (False, 0)
    assert 119 <= decision.retry_after <= 121


async def test_a_cost_beyond_the_limit_needs_a_full_bucket(limiter):
    first = await limiter.check_tokens("ten_1", 10, 1000)
    await limiter.charge_tokens("ten_1", 10, 1)

    assert first.allowed
    assert not (await limiter.check_tokens("ten_1", 10, 1000)).allowed


async def test_debts_beyond_any_sense_do_no_harm(limiter):
    await limiter.charge_tokens("ten_1", 1, 2**62)

    assert not (await limiter.check_tokens("ten_1", 1)).allowed


async def test_the_largest_limit_works(limiter):
    await limiter.charge_tokens("ten_1", 1_000_000_000, 999_999_999)

    assert (await limiter.check_tokens("ten_1", 1_000_000_000)).allowed


@pytest.mark.parametrize("limit", [0, -5])
async def test_no_limit_at_all_admits_nothing(limiter, limit):
    await limiter.charge_tokens("ten_1", limit, 5)

    assert not (await limiter.check_requests("ten_1", limit)).allowed
    assert not (await limiter.check_tokens("ten_1", limit)).allowed


async def test_callers_at_once_share_the_limit_exactly(limiter):
    decisions = await asyncio.gather(*(limiter.check_requests("ten_1", 20) for _ in range(100)))

    assert sum(decision.allowed for decision in decisions) == 20


async def test_a_window_admits_at_most_the_burst_and_what_drains_in_it(limiter):
    limit, started, admitted, asked = 1200, time.monotonic(), 0, 0
    while time.monotonic() < started + 1 or asked < 2 * limit:  # a busy machine takes longer to ask for the burst
        asked += 1
        admitted += (await limiter.check_requests("ten_1", limit)).allowed
    width = time.monotonic() - started

    assert limit <= admitted <= limit + limit * width / 60 + 1
