"""What an autoscaler makes of a load."""

from __future__ import annotations

import itertools

import pytest

from kgents.load.autoscaler import Metric, Policy, Rules, Settings
from kgents.load.simulation import Capacity, Point, Timing, rate_at, simulate, steps, summary

SETTINGS = Settings(2, 10, [Metric("cpu", 70)])
CAPACITY = Capacity(cpu_per_request=0.001, request=500, limit=1000, idle=0, start=5.0)


def test_a_steady_load_that_fits_changes_nothing():
    assert steps(simulate(SETTINGS, CAPACITY, [Point(0, 700), Point(600, 700)])) == [(0, 2)]


def test_a_load_that_grows_gets_the_pods_that_it_needs_and_they_go_after_it():
    load = [Point(0, 100), Point(60, 100), Point(61, 2000), Point(600, 2000), Point(601, 100), Point(1200, 100)]

    moments = simulate(SETTINGS, CAPACITY, load)

    assert moments[590].replicas == 6  # 2 cores at 70 % of 0.5 are 5.7
    assert 60 < moments[590].utilization < 77
    assert moments[-1].replicas == 2
    assert next(second for second, replicas in steps(moments) if second > 600) > 880  # five minutes after


def test_it_never_has_more_than_it_may():
    moments = simulate(SETTINGS, CAPACITY, [Point(0, 50_000), Point(300, 50_000)])

    assert max(moment.replicas for moment in moments) == 10
    assert moments[-1].waiting > 0
    assert moments[-1].latency > moments[0].latency


def test_what_could_not_be_served_waits_and_is_served_later():
    load = [Point(0, 3000), Point(20, 3000), Point(21, 100), Point(400, 100)]

    moments = simulate(SETTINGS, CAPACITY, load)

    assert max(moment.waiting for moment in moments) > 0
    assert moments[-1].waiting == 0
    assert summary(moments)["seconds_behind"] > 5


def test_a_pod_serves_only_once_it_is_ready():
    slow = Capacity(0.001, 500, 1000, idle=0, start=60.0)
    load = [Point(0, 100), Point(10, 1900), Point(300, 1900)]

    moments = simulate(SETTINGS, slow, load)

    grown = next(second for second, replicas in steps(moments) if replicas > 2)
    assert moments[grown + 55].ready == 2
    assert moments[grown + 65].ready > 2


def test_waiting_for_a_model_is_seen_by_the_second_metric_only():
    waiting = Capacity(0.001, 500, 1000, idle=0, in_flight=2.0)
    load = [Point(0, 10), Point(30, 100), Point(300, 100)]
    both = Settings(2, 10, [*SETTINGS.metrics, Metric("runs", 40_000)])

    assert steps(simulate(SETTINGS, waiting, load)) == [(0, 2)]
    assert simulate(both, waiting, load)[-1].replicas == 6


def test_the_autoscaler_looks_as_often_as_it_is_told():
    load = [Point(0, 100), Point(1, 2000), Point(120, 2000)]
    quick = steps(simulate(SETTINGS, CAPACITY, load, Timing(sync=5.0, resolution=5.0)))
    slow = steps(simulate(SETTINGS, CAPACITY, load, Timing(sync=30.0, resolution=30.0)))

    assert quick[1][0] < slow[1][0]


def test_what_metrics_read_later_is_acted_on_later():
    load = [Point(0, 100), Point(1, 2000), Point(120, 2000)]
    first = [steps(simulate(SETTINGS, CAPACITY, load, Timing(5.0, 15.0, phase)))[1][0] for phase in (0.0, 5.0, 10.0)]

    assert first == sorted(set(first))


def test_a_load_that_goes_away_slowly_takes_pods_away_one_at_a_time():
    settings = Settings(2, 10, SETTINGS.metrics, down=Rules(60, (Policy("Pods", 1, 60),)))
    load = [Point(0, 2000), Point(120, 2000), Point(121, 100), Point(700, 100)]

    found = steps(simulate(settings, CAPACITY, load))
    down = found[found.index(max(found, key=lambda step: step[1])) :]

    assert [replicas for _, replicas in down] == list(range(down[0][1], 1, -1))
    assert all(later - earlier >= 60 for (earlier, _), (later, _) in itertools.pairwise(down))


def test_the_load_between_two_points_is_on_the_line_between_them():
    load = [Point(0, 0), Point(10, 100), Point(20, 100)]
    assert [rate_at(load, second) for second in (0, 5, 10, 15, 99)] == [0, 50, 100, 100, 100]


@pytest.mark.parametrize("load", [[], [Point(0, 1)], [Point(5, 1), Point(5, 2)]])
def test_a_load_without_a_course_is_refused(load: list[Point]):
    with pytest.raises(ValueError, match="two points"):
        simulate(SETTINGS, CAPACITY, load)


def test_a_load_of_more_than_a_week_is_refused():
    with pytest.raises(ValueError, match="a week"):
        simulate(SETTINGS, CAPACITY, [Point(0, 1), Point(7 * 86_400 + 1, 1)])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cpu_per_request": "x"}, "cpu_per_request is 'x'"),
        ({"cpu_per_request": -1}, "cpu_per_request is -1"),
        ({"cpu_per_request": float("nan")}, "cpu_per_request is nan"),
        ({"cpu_per_request": 1e308}, "cpu_per_request is 1e.308"),
        ({"cpu_per_request": 0}, "more than 0"),
        ({"request": 0}, "more than 0"),
        ({"limit": 10}, "limit more than idle"),
        ({"cpu": 1}, "it has cpu; there are cpu_per_request"),
    ],
)
def test_a_capacity_that_no_pod_has_is_refused(change: dict[str, object], why: str):
    document = {"cpu_per_request": 0.001, "request": 500, "limit": 1000}
    assert Capacity.parse(document).rate == pytest.approx(990)
    with pytest.raises(ValueError, match=why):
        Capacity.parse(document | change)
    with pytest.raises(ValueError, match="it has no limit"):
        Capacity.parse({"cpu_per_request": 0.001, "request": 500})
