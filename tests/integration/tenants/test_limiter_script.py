"""The script that counts in Redis, against the same arithmetic in Python, at times that the test decides."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from kgents.tenants.ratelimit import decide
from kgents.tenants.ratelimit_redis import SCRIPT, TICKS

UNIT = 60 * TICKS

# The same script at a time that is given, keeping what it keeps for long enough to be looked at.
AT_A_TIME = SCRIPT.replace("redis.call('TIME')", "{ARGV[4], ARGV[5]}").replace(
    "string.format('%.0f', drained)", "'600000'"
)


class Model:
    """A bucket in Python: the level when it was last written, and when that was."""

    def __init__(self):
        self.level, self.at = 0, 0

    def ask(self, mode, limit, cost, now):
        level = max(0, self.level - (now - self.at) * limit)
        after = level + (cost if mode == "charge" else min(cost, limit)) * UNIT
        allowed = mode == "charge" or after <= limit * UNIT
        if allowed and mode != "peek":
            level = self.level = after
            self.at = now
        return allowed, level


@pytest.fixture
def run(redis):
    with Redis.from_url(redis.url) as client:
        assert AT_A_TIME.count("ARGV[4]") == AT_A_TIME.count("'600000'") == 1
        script = client.register_script(AT_A_TIME)

        def run(mode, limit, cost, now):
            seconds, millis = divmod(now, TICKS)
            allowed, level = script(keys=["bucket"], args=[mode, limit, cost, seconds, millis * 1000 + 999])
            return bool(allowed), int(level)

        run.reset = client.flushdb
        yield run


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "peek", "charge"]),
        st.integers(1, 10_000),
        st.one_of(st.integers(0, 100), st.integers(0, 100_000)),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.one_of(st.integers(1, 20_000), st.integers(1, 1_000_000_000)), steps=STEPS)
def test_the_script_counts_exactly_as_the_model(run, limit, steps):
    run.reset()
    model, now = Model(), 1_800_000_000_000
    for mode, cost, gap in steps:
        now += gap
        assert run(mode, limit, cost, now) == model.ask(mode, limit, cost, now)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(1, 200), gaps=st.lists(st.integers(0, 3000), min_size=1, max_size=60))
def test_any_window_admits_at_most_the_burst_and_what_drains_in_it(run, limit, gaps):
    run.reset()
    now, admitted = 1_800_000_000_000, []
    for gap in gaps:
        now += gap
        if run("take", limit, 1, now)[0]:
            admitted.append(now)

    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            assert (last - first + 1 - limit) * UNIT <= (admitted[last] - admitted[first]) * limit


@pytest.mark.parametrize("mode", ["take", "peek"])
def test_a_clock_that_is_set_back_does_not_lock_a_tenant_out(run, mode):
    now = 1_800_000_000_000
    assert run("take", 1, 1, now)[0]
    assert not run(mode, 1, 1, now - 3_600_000)[0]

    assert run("take", 1, 1, now - 3_600_000 + 60_000)[0]


def test_the_decision_of_a_level():
    assert decide(UNIT * 3, 1, 10, TICKS, allowed=True) == (True, 10, 7, 18, 0)
