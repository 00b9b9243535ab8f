"""The health board: what it says of dependencies that answer, fail, hang and come back."""

from __future__ import annotations

import asyncio

import pytest

from kgents.clock import ManualClock
from kgents.errors import Unavailable
from kgents.telemetry import health
from kgents.telemetry.health import Check, Facts, HealthBoard


class Dependency:
    """A dependency that does what the test says."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None
        self.hangs = False

    async def probe(self) -> Facts:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.error:
            raise self.error
        return Facts(backlog=7)


@pytest.fixture
def dependency() -> Dependency:
    return Dependency()


def board(dependency: Dependency, clock: ManualClock, *, critical: bool = False) -> HealthBoard:
    return HealthBoard([Check("thing", "external", dependency.probe, critical=critical)], clock)


async def test_a_dependency_that_answers_is_connected(dependency: Dependency, clock: ManualClock) -> None:
    report = await board(dependency, clock).report()
    assert (report.status, report.http_status) == ("ok", 200)
    assert (report.components["thing"].status, report.components["thing"].backlog) == ("connected", 7)


@pytest.mark.parametrize(("critical", "status", "code"), [(False, "degraded", 200), (True, "unavailable", 503)])
async def test_a_dependency_that_fails(
    dependency: Dependency, clock: ManualClock, critical: bool, status: str, code: int
) -> None:
    dependency.error = Unavailable("It is away.")
    report = await board(dependency, clock, critical=critical).report()
    assert (report.status, report.http_status) == (status, code)
    assert report.components["thing"].status == "disconnected"
    assert report.components["thing"].detail == "It is away."


async def test_a_dependency_that_hangs_is_disconnected_in_time(
    dependency: Dependency, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "TIMEOUT", 0.05)
    dependency.hangs = True
    report = await board(dependency, clock).report()
    assert "no answer" in str(report.components["thing"].detail)


async def test_an_unexpected_error_shows_only_its_type(dependency: Dependency, clock: ManualClock) -> None:
    dependency.error = RuntimeError("secret")
    report = await board(dependency, clock).report()
    assert report.components["thing"].detail == "RuntimeError"


async def test_an_answer_is_told_again_for_a_second_and_asked_once_by_many(
    dependency: Dependency, clock: ManualClock
) -> None:
    found = board(dependency, clock)
    await asyncio.gather(*(found.report() for _ in range(20)))
    assert dependency.asked == 1
    clock.advance(health.MAX_AGE + 0.1)
    await found.report()
    assert dependency.asked == 2


async def test_the_last_good_answer_is_remembered(dependency: Dependency, clock: ManualClock) -> None:
    found = board(dependency, clock)
    good = (await found.report()).components["thing"].last_ok
    clock.advance(10)
    dependency.error = Unavailable("It is away.")
    assert (await found.report()).components["thing"].last_ok == good


async def test_what_is_not_configured_is_no_fault(clock: ManualClock) -> None:
    report = await HealthBoard([Check("redis", "external", None)], clock).report()
    assert (report.status, report.components["redis"].status) == ("ok", "not_configured")


async def test_a_draining_process_is_not_ready(dependency: Dependency, clock: ManualClock) -> None:
    found = board(dependency, clock)
    found.draining = True
    assert (await found.report()).http_status == 503


async def test_the_text_has_a_line_for_each_check(dependency: Dependency, clock: ManualClock) -> None:
    dependency.error = Unavailable("It is away.")
    lines = (await board(dependency, clock).report()).text().splitlines()
    assert lines == ["[-]thing disconnected: It is away.", "readyz degraded"]
