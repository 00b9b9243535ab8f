"""What is particular to counting in memory. What every limiter promises is in tests/contract."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kgents.clock import ManualClock
from kgents.tenants.ratelimit import SWEEP_FROM, MemoryLimiter, decide, open_limiter


def run(coroutine):
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


@given(
    limit=st.integers(1, 100_000),
    gaps=st.lists(st.one_of(st.integers(0, 200_000), st.integers(0, 70_000_000)), min_size=1, max_size=120),
)
def test_any_window_admits_at_most_the_burst_and_what_drains_in_it(limit, gaps):
    clock = ManualClock(0)
    limiter = MemoryLimiter(clock)
    admitted = []
    for gap in gaps:
        clock.advance(gap / 1_000_000)
        if run(limiter.check_requests("ten_1", limit)).allowed:
            admitted.append(clock.now())

    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            width = admitted[last] - admitted[first]
            assert (last - first + 1 - limit) * 60_000_000 <= width * limit + limit  # a tick of rounding


@given(
    limit=st.integers(1, 1_000_000),
    steps=st.lists(st.tuples(st.integers(0, 90_000_000), st.integers(0, 2_000_000)), min_size=1, max_size=60),
)
def test_tokens_go_out_at_the_rate_with_at_most_one_charge_on_credit(limit, steps):
    clock = ManualClock(0)
    limiter = MemoryLimiter(clock)
    charged = largest = 0
    for gap, cost in steps:
        clock.advance(gap / 1_000_000)
        if run(limiter.check_tokens("ten_1", limit)).allowed:
            run(limiter.charge_tokens("ten_1", limit, cost))
            charged += cost
            largest = max(largest, cost)

    assert (charged - largest - limit) * 60_000_000 <= (clock.now() + 1) * limit


@given(limit=st.integers(1, 10**9), level=st.integers(0, 10**20), cost=st.integers(1, 10**6))
def test_a_refusals_retry_after_is_when_there_is_room(limit, level, cost):
    wanted = min(cost, limit) * 60_000
    assume(level + wanted > limit * 60_000)

    decision = decide(level, cost, limit, 1000, allowed=False)

    drained = 1000 * limit * decision.retry_after
    assert level - drained + wanted <= limit * 60_000
    assert level - drained + 1000 * limit + wanted > limit * 60_000


def test_what_is_kept_of_idle_tenants_is_dropped():
    clock = ManualClock()
    limiter = MemoryLimiter(clock)
    for number in range(50 * SWEEP_FROM):
        run(limiter.check_requests(f"ten_{number}", 60))
        clock.advance(0.01)

    # A bucket of one request at 60 a minute drains in a second, in which 100 tenants come by.
    assert limiter.size <= SWEEP_FROM


def test_busy_tenants_are_not_dropped():
    clock = ManualClock()
    limiter = MemoryLimiter(clock)
    for number in range(3 * SWEEP_FROM):
        run(limiter.check_requests(f"ten_{number}", 1))

    assert not run(limiter.check_requests("ten_0", 1)).allowed


def test_without_a_url_it_counts_in_memory():
    assert isinstance(open_limiter(None, ManualClock()), MemoryLimiter)


@pytest.mark.parametrize("url", ["http://host", "redis://user:canary@host:port", "nonsense canary"])
def test_a_bad_url_is_refused_and_not_repeated(url):
    with pytest.raises(ValueError, match="KGENTS_REDIS_URL") as caught:
        open_limiter(url, ManualClock())

    assert "canary" not in str(caught.value)
