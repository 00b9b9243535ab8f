"""The course of each profile, and the search for the knee."""

from __future__ import annotations

import pytest

from kgents.load.profiles import CLOSE, Name, meets, next_rate, profile
from tests.support.loads import step


def search(knee: float, first: float = 50) -> list[float]:
    """The rates that are tried when those up to `knee` meet the target."""
    found = [{"offered": first, "met": first <= knee}]
    while (rate := next_rate(found)) is not None:
        found.append({"offered": rate, "met": rate <= knee})
    return [each["offered"] for each in found]


@pytest.mark.parametrize("knee", [20, 51, 333, 2222])
def test_the_search_ends_close_below_the_knee(knee):
    tried = search(knee)

    best = max(rate for rate in tried if rate <= knee)
    worst = min(rate for rate in tried if rate > knee)
    assert worst <= best * CLOSE
    assert len(tried) <= 24


def test_a_rate_that_missed_the_target_once_is_tried_again():
    found = [{"offered": 50.0, "met": True}, {"offered": 75.0, "met": False}]
    assert next_rate(found) == 75

    assert next_rate([*found, {"offered": 75.0, "met": True}]) == 112.5
    assert 50 < next_rate([*found, {"offered": 75.0, "met": False}]) < 75


def test_the_search_gives_up_where_nothing_meets_the_target():
    assert min(search(0)) < 1


def test_every_profile_has_a_course_and_takes_a_rate_and_a_length():
    for name in Name:
        made = profile(name, rate=30, seconds=7)
        assert {each.seconds for each in made.steps} == {7}
        assert made.steps[0].rate == (0 if name is Name.PHASE7 else 30)


def test_a_spike_is_five_times_the_calm_rate_and_goes_back():
    assert [each.rate for each in profile(Name.SPIKE, rate=10).steps] == [10, 50, 10]


def test_phase7_is_the_closed_loop_of_50_users_that_wait_100_ms():
    made = profile(Name.PHASE7)

    assert (made.users, made.wait, made.streams) == (50, 0.1, 0.0)


@pytest.mark.parametrize(
    "change",
    [
        {"latency_ms": {"p99": 101.0}},
        {"first_token_ms": {"p99": 101.0}},
        {"errors": 1},
        {"latency_ms": {}, "first_token_ms": {}},
    ],
)
def test_a_step_misses_the_target(change):
    assert meets(step(100.0), 100.0)
    assert not meets(step(100.0, **change), 100.0)
