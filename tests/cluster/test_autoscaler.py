"""The simulated autoscaler decides as Kubernetes' own code does."""

from __future__ import annotations

import json
import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import build
from kgents.load.autoscaler import Autoscaler, Metric, Pod, Settings

NOW = 10_000.0
# Apart from the limits that the controller compares with (300 s, 30 s), since it reads its own clock.
AGES = st.sampled_from([1.0, 10.0, 20.0, 45.0, 100.0, 250.0, 400.0, 5000.0])


@st.composite
def pods(draw: st.DrawFn, name: str, metric: str) -> tuple[Pod, dict[str, object]]:
    started = draw(st.none() | AGES)
    since = draw(AGES)
    ready = draw(st.booleans())
    value = draw(st.none() | st.integers(0, 5000))
    sampled = draw(st.sampled_from([0.5, 12.0, 40.0]))
    request = draw(st.sampled_from([100, 250, 500, 1000]))
    pending, leaving = draw(st.booleans()) and draw(st.booleans()), draw(st.booleans()) and draw(st.booleans())
    ours = Pod(
        name,
        request,
        None if started is None else NOW - started,
        ready,
        NOW - since,
        {} if value is None else {metric: value},
        NOW - sampled,
        15.0,
        pending,
        leaving,
    )
    theirs = {
        "Name": name,
        "Request": request,
        "Pending": pending,
        "Leaving": leaving,
        "Ready": ready,
        "Started": started,
        "ReadySince": since,
        "Value": value,
        "Sampled": sampled,
        "Window": 15.0,
    }
    return ours, theirs


@st.composite
def questions(draw: st.DrawFn) -> tuple[Metric, int, list[Pod], dict[str, object]]:
    metric = draw(st.sampled_from([Metric("cpu", 70), Metric("cpu", 50), Metric("cpu", 150), Metric("runs", 900)]))
    made = [draw(pods(f"pod-{number}", metric.name)) for number in range(draw(st.integers(1, 8)))]
    current = draw(st.integers(1, 12))
    asked = {
        "Metric": metric.name,
        "Target": metric.target,
        "Current": current,
        "Pods": [theirs for _, theirs in made],
    }
    return metric, current, [ours for ours, _ in made], asked


@settings(max_examples=40, deadline=None)
@given(st.lists(questions(), min_size=50, max_size=50))
def test_replicas_are_those_of_kubernetes(asked: list[tuple[Metric, int, list[Pod], dict[str, object]]]) -> None:
    lines = "".join(json.dumps(question) + "\n" for *_, question in asked)
    done = subprocess.run([build.build() / "oracle"], input=lines, capture_output=True, text=True, check=True)
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    ours = [
        Autoscaler(Settings(1, 1000, [metric]))._by_metric(NOW, current, seen, metric)
        for metric, current, seen, _ in asked
    ]
    assert ours == theirs
