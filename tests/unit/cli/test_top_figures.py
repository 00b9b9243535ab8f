"""The figures of `kgents top`, from metrics as processes expose them."""

from __future__ import annotations

import pytest

from kgents.cli.top_figures import Reading, figures, sample_of
from kgents.telemetry.metrics import Metrics

HEALTH = {"status": "ok", "components": {"nats": {"status": "connected", "backlog": 7}}}


def reading(at: float, **processes: Metrics) -> Reading:
    return Reading(at, {name: sample_of(one.expose().decode()) for name, one in processes.items()}, HEALTH)


def answer(metrics: Metrics, *seconds: float, route: str = "/v1/agents", status: int = 200) -> None:
    for each in seconds:
        metrics.request_started()
        metrics.request_ended(route, "GET", status, each)


def test_rates_are_of_the_time_between_and_of_all_processes() -> None:
    one, other = Metrics("api"), Metrics("api")
    answer(one, *[0.1] * 50)
    before = reading(10.0, one=one, other=other)
    answer(one, *[0.1] * 6)
    answer(other, *[0.1] * 2, status=503)
    one.run("wait", "failed", 0.1)
    one.tokens(30, 10)
    found = figures(before, reading(12.0, one=one, other=other))
    assert found["requests"]["per_second"] == 4.0
    assert found["requests"]["errors_per_second"] == 1.0
    assert found["runs"] == {"per_second": 0.5, "failed_per_second": 0.5, "in_flight": 0}
    assert found["tokens"] == {"input_per_second": 15.0, "output_per_second": 5.0}


def test_probes_are_no_requests() -> None:
    metrics = Metrics("api")
    before = reading(0.0, api=metrics)
    answer(metrics, 1.0, route="/health/saas", status=503)
    found = figures(before, reading(1.0, api=metrics))["requests"]
    assert (found["per_second"], found["errors_per_second"], found["p50_ms"]) == (0.0, 0.0, None)


@pytest.mark.parametrize(
    ("seconds", "p50", "p95"), [([0.002] * 10, 1.75, 2.43), ([0.002] * 90 + [0.2] * 10, 1.83, 175)]
)
def test_latency_is_read_from_the_buckets(seconds: list[float], p50: float, p95: float) -> None:
    metrics = Metrics("api")
    before = reading(0.0, api=metrics)
    answer(metrics, *seconds)
    found = figures(before, reading(1.0, api=metrics))["requests"]
    assert found["p50_ms"] == pytest.approx(p50, abs=0.01)
    assert found["p95_ms"] == pytest.approx(p95, abs=0.01)


def test_a_process_that_was_started_again_counts_from_nothing() -> None:
    metrics, restarted = Metrics("api"), Metrics("api")
    answer(metrics, *[0.1] * 100)
    answer(restarted, *[0.1] * 3)
    found = figures(reading(0.0, api=metrics), reading(1.0, api=restarted))
    assert found["requests"]["per_second"] == 3.0


def test_a_process_that_is_new_has_no_rate_yet() -> None:
    metrics = Metrics("api")
    answer(metrics, *[0.1] * 100)
    found = figures(reading(0.0), reading(1.0, api=metrics))
    assert found["requests"]["per_second"] == 0.0
    assert [each["process"] for each in found["processes"]] == ["api"]


def test_the_outbox_is_one_and_the_bus_tells_of_itself() -> None:
    one, other = Metrics("api"), Metrics("worker")
    one.outbox(5, 1.26)
    other.outbox(4, 1.0)
    found = figures(reading(0.0), reading(1.0, one=one, other=other))
    assert found["backlog"] == {"outbox": 5, "oldest_seconds": 1.3, "bus": 7}


def test_a_process_that_can_not_measure_the_outbox_is_left_out() -> None:
    one, other = Metrics("api"), Metrics("worker")
    one.outbox_unknown()
    other.outbox(4, 1.0)
    found = figures(reading(0, api=one, worker=other), reading(1, api=one, worker=other))
    assert (found["backlog"]["outbox"], found["backlog"]["oldest_seconds"]) == (4, 1.0)


def test_without_a_health_page_it_is_unavailable() -> None:
    found = figures(Reading(0.0, {}, {}), Reading(1.0, {}, {}))
    assert (found["status"], found["components"], found["backlog"]["bus"]) == ("unavailable", [], None)
