"""Our counters and histograms expose what the Prometheus client's own do."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from kgents.telemetry.series import Counts, Distribution

BOUNDS = (0.001, 0.25, 1.0, 60.0)
routes = st.sampled_from(["/v1/agents", 'a"quote', "b\\slash"])
statuses = st.sampled_from([200, 404])
times = st.one_of(st.sampled_from([0.0, *BOUNDS, 61.0]), st.floats(0, 100))


def exposed(registry: CollectorRegistry) -> list[str]:
    """What is exposed, without the moments at which series were begun."""
    return [re.sub(r"(_created\S*) \S+$", r"\1", line) for line in generate_latest(registry).decode().splitlines()]


@given(st.lists(st.tuples(routes, statuses, st.integers(1, 10**12))))
def test_counts_are_exposed_as_the_clients_are(given_: list[tuple[str, int, int]]) -> None:
    mine, theirs = CollectorRegistry(), CollectorRegistry()
    counts = Counts("kgents_x", "What x is.", ("route", "status"), mine)
    counter = Counter("kgents_x", "What x is.", ("route", "status"), registry=theirs)
    for route, status, count in given_:
        counts.add((route, status), count)
        counter.labels(route, str(status)).inc(count)
    assert exposed(mine) == exposed(theirs)


@given(st.lists(st.tuples(routes, times)))
def test_distributions_are_exposed_as_the_clients_are(given_: list[tuple[str, float]]) -> None:
    mine, theirs = CollectorRegistry(), CollectorRegistry()
    distribution = Distribution("kgents_x_seconds", "How long x takes.", BOUNDS, ("route",), mine)
    histogram = Histogram("kgents_x_seconds", "How long x takes.", ("route",), buckets=BOUNDS, registry=theirs)
    for route, seconds in given_:
        distribution.observe(seconds, (route,))
        histogram.labels(route).observe(seconds)
    assert exposed(mine) == exposed(theirs)


@given(st.lists(times))
def test_one_without_labels_is_there_from_the_start(given_: list[float]) -> None:
    mine, theirs = CollectorRegistry(), CollectorRegistry()
    distribution = Distribution("kgents_x_seconds", "How long x takes.", BOUNDS, (), mine)
    histogram = Histogram("kgents_x_seconds", "How long x takes.", buckets=BOUNDS, registry=theirs)
    for seconds in given_:
        distribution.observe(seconds)
        histogram.observe(seconds)
    assert exposed(mine) == exposed(theirs)
