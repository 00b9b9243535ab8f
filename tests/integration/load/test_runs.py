"""Load on a real kgents: a run that may be believed, and runs that may not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kgents.clock import SystemClock
from kgents.errors import Unprocessable
from kgents.load import capacity
from kgents.load.measured import Counts
from kgents.load.profiles import Name, Step, profile
from kgents.load.resources import Pages
from kgents.load.run import Plan, run
from kgents.load.target import Target
from kgents.load.verdict import reasons
from kgents.readiness.checks.recorded import loaded
from kgents.readiness.target import Target as ReadinessTarget
from tests.support.up import UNMEASURED, Up
from tests.support.vegeta import slowed
from tests.support.waiting import wait_until

MACHINE = {"generator-late", "noise"}


class Silent:
    """A watcher that lets something happen once a step has begun, and once it has ended."""

    def __init__(self, begun: Callable[[], None], ended: Callable[[], None]) -> None:
        self._begun, self._ended = begun, ended

    def begin(self, step: Step) -> None:
        self._begun()

    def tell(self, second: float, counts: Counts) -> None:
        pass

    def end(self, found: Mapping[str, Any]) -> None:
        self._ended()


def nothing() -> None:
    """What happens by itself."""


def seen_of(up: Up) -> Target:
    return Target(up.url, up.admin_key, Pages([up.facts["metrics_url"], up.facts["worker_metrics_url"]]))


def load(
    up: Up, vegeta: Path, *, begun: Callable[[], None] = nothing, ended: Callable[[], None] = nothing
) -> dict[str, Any]:
    plan = Plan(profile(Name.SMOKE, rate=40, seconds=1), 2000.0, 2, "kgents loadtest")
    return asyncio.run(run(plan, seen_of(up), vegeta, Silent(begun, ended)))


def codes(document: Mapping[str, Any], **expected: str) -> set[str]:
    """The reasons, without those that the tests' machine may give, which has more to do than this."""
    return {reason.code for reason in reasons(document, expected)} - MACHINE


@pytest.fixture(scope="module")
def document(up: Up, vegeta: Path) -> dict[str, Any]:
    """The report of a run in which nothing happened."""
    return load(up, vegeta)


def test_a_run_that_may_be_believed(document: dict[str, Any]) -> None:
    assert codes(document, version="0.1.0", mode="embedded") == set()
    assert document["valid"] == (not document["reasons"])
    step = document["steps"][0]
    assert step["requests"] == 40
    assert step["statuses"].keys() <= {"200", "201"}
    assert {"chat", "stream"} <= set(step["kinds"])
    assert step["first_token_ms"]["p50"] > 0
    assert step["processes"].keys() == {"api", "worker"}
    assert step["processes"]["api"]["most_memory_mib"] > 20


def test_readiness_reads_the_report(document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evidence").mkdir()
    # As long and fast as a baseline is, on a machine that has nothing else to do.
    alone = {"vegeta_cores": 0.1, "driver_cores": 0.1, "other_programs_cores": 0.0}
    fast = {"offered": 100, "sent": 100, "seconds": 60, "late_ms": {}, "generator": alone}
    steps = [{**step, **fast, "latency_ms": {"p99": 9.0}, "first_token_ms": {"p99": 9.0}} for step in document["steps"]]
    profile = {**document["profile"], "name": "baseline"}
    baseline = {**document, "valid": True, "profile": profile, "steps": steps, "commit": "c0ffee"}
    monkeypatch.setattr(ReadinessTarget, "changed_since", lambda _, commit: [] if commit == "c0ffee" else None)
    (tmp_path / "evidence" / "load-baseline.json").write_text(json.dumps(baseline))

    found = loaded(ReadinessTarget(SystemClock(), tmp_path, bytes))

    assert "no errors" in str(found)


def test_the_tenants_of_the_test_are_archived(document: dict[str, Any], up: Up) -> None:
    with up.admin() as admin:
        tenants = admin.get("/v1/tenants", params={"limit": 100}).json()["data"]
    assert {each["status"] for each in tenants if each["name"].startswith("loadtest-")} <= {"deleted"}


def test_a_target_that_is_not_what_it_was_told_to_be(document: dict[str, Any]) -> None:
    assert codes(document, version="9.9.9") == {"version"}
    assert codes(document, commit="0123456789ab") == {"commit"}  # it does not tell its own
    assert codes(document, mode="external") == {"integration"}


def test_a_generator_that_makes_less_load_than_it_should(up: Up, vegeta: Path, tmp_path: Path) -> None:
    assert codes(load(up, slowed(vegeta, tmp_path))) == {"generator-rate"}


def test_a_meter_that_was_off_and_a_worker_that_was_started_again(vegeta: Path, tmp_path: Path) -> None:
    broken = Up(tmp_path / "data", environment=UNMEASURED)
    broken.start()
    meter = broken.pid("meter")

    def kill() -> None:
        worker = broken.pid("worker")
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: broken.pid("worker") != worker, seconds=30, what="the worker was started again")

    def resume() -> None:
        os.kill(meter, signal.SIGCONT)
        wait_until(lambda: broken.component("meter") == "connected", seconds=30, what="the meter is back")

    try:
        os.kill(meter, signal.SIGSTOP)
        wait_until(lambda: broken.component("meter") == "disconnected", seconds=15, what="the meter is missed")
        document = load(broken, vegeta, begun=kill, ended=resume)
    finally:
        os.kill(meter, signal.SIGCONT)
        broken.stop()

    said = {reason["text"] for reason in document["reasons"]}
    assert not document["valid"]
    assert "meter was disconnected before the run" in said
    assert "not the same processes served to the end: worker" in said


def gauge(
    up: Up, vegeta: Path, stress: Mapping[str, Any], begun: Callable[[], None], ended: Callable[[], None]
) -> dict[str, Any]:
    watcher = Silent(begun, ended)
    return asyncio.run(
        capacity.measure(seen_of(up), vegeta, watcher, stress, tenants=2, seconds=1, command="kgents capacity")
    )


def test_a_capacity_is_of_what_the_stress_run_was_of(
    up: Up, vegeta: Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "SIZES", (1, 2))

    found = gauge(up, vegeta, document, nothing, nothing)

    assert [point["size"] for point in found["points"]] == [1, 2, 2, 1]
    assert all(point["unwell"] == [] and point["backlog"] == 0 for point in found["points"])
    assert found["target"]["modes"] == document["target"]["modes"]
    with pytest.raises(Unprocessable, match="differ in: machine"):
        gauge(up, vegeta, document | {"machine": {}}, nothing, nothing)


def test_a_meter_that_was_off_for_one_point_of_a_capacity(
    vegeta: Path, document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "SIZES", (1, 2))
    broken = Up(tmp_path / "data", environment=UNMEASURED)
    broken.start()
    meter = broken.pid("meter")
    turns = iter(range(100))

    def stop() -> None:
        if next(turns) == 0:
            os.kill(meter, signal.SIGSTOP)
            wait_until(lambda: broken.component("meter") == "disconnected", seconds=15, what="the meter is missed")

    def resume() -> None:
        os.kill(meter, signal.SIGCONT)
        wait_until(lambda: broken.component("meter") == "connected", seconds=30, what="the meter is back")

    try:
        with pytest.raises(Unprocessable, match=r"not valid.*meter was disconnected with 1 at once"):
            gauge(broken, vegeta, document, stop, resume)
    finally:
        os.kill(meter, signal.SIGCONT)
        broken.stop()
