"""Counters and histograms of what happens with every request: an addition each, without a lock.

The Prometheus client's own take several times as long, most of it for the locks that let any thread use them. Each of
these is added to on one thread, and is exposed with the same samples as the client's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from kgents.clock import SystemClock

Labels = tuple[str | int, ...]
_clock = SystemClock()


def _now() -> float:
    """Seconds since the epoch, as Prometheus has them."""
    return _clock.now() / 1e6


class Counts(Collector):
    """A counter for each combination of its labels' values. To be added to on one thread, and read on any."""

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._about = (name, text)
        self._labels = tuple(labels)
        self._values: dict[Labels, int] = {}
        self._since: dict[Labels, float] = {}
        registry.register(self)

    def add(self, labels: Labels, count: int = 1) -> None:
        """Count up by a whole number. `labels` are the labels' values in their order."""
        try:
            self._values[labels] += count
        except KeyError:
            self._since[labels] = _now()
            self._values[labels] = count

    def describe(self) -> Iterator[Metric]:
        """What is exposed, without its values."""
        yield CounterMetricFamily(*self._about, labels=self._labels)

    def collect(self) -> Iterator[Metric]:
        """The values now."""
        family = CounterMetricFamily(*self._about, labels=self._labels)
        for values, count in list(self._values.items()):
            family.add_metric([str(value) for value in values], count, created=self._since[values])
        yield family


class _Observed:
    """The values under one combination of labels: how many are in each bucket, and in the one without a bound."""

    __slots__ = ("counts", "since", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.total = 0.0
        self.since = _now()


class Distribution(Collector):
    """A histogram for each combination of its labels' values. To be added to on one thread, and read on any."""

    def __init__(
        self, name: str, text: str, bounds: Sequence[float], labels: Sequence[str], registry: CollectorRegistry
    ) -> None:
        self._about = (name, text)
        self._labels = tuple(labels)
        self._bounds = tuple(bounds)
        self._names = [*(str(float(bound)) for bound in bounds), "+Inf"]
        self._series: dict[Labels, _Observed] = {} if labels else {(): self._new()}
        registry.register(self)

    def observe(self, value: float, labels: Labels = ()) -> None:
        """Add a value. A bucket holds the values up to its bound, that one included."""
        found = self._series.get(labels)
        if found is None:
            found = self._series[labels] = self._new()
        found.counts[bisect_left(self._bounds, value)] += 1
        found.total += value

    def describe(self) -> Iterator[Metric]:
        """What is exposed, without its values."""
        yield HistogramMetricFamily(*self._about, labels=self._labels)

    def collect(self) -> Iterator[Metric]:
        """The values now."""
        family = HistogramMetricFamily(*self._about, labels=self._labels)
        for values, found in list(self._series.items()):
            named = [str(value) for value in values]
            counts = accumulate(list(found.counts))
            family.add_metric(named, list(zip(self._names, counts, strict=True)), found.total)
            created = f"{family.name}_created"
            family.add_sample(created, dict(zip(self._labels, named, strict=True)), found.since)
        yield family

    def _new(self) -> _Observed:
        return _Observed(len(self._names))
