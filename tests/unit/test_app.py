"""The composition root: what it does when a loop ends, what it measures, and how a process is called."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import os
import signal
import socket
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from kgents import app
from kgents.app import Parts
from kgents.bus.model import BusState
from kgents.clock import ManualClock
from kgents.config import Settings
from kgents.errors import Unavailable
from kgents.telemetry.health import HealthBoard
from kgents.telemetry.metrics import Metrics
from tests.support.waiting import eventually


async def returns() -> None:
    pass


async def raises() -> None:
    raise RuntimeError("a bug")


async def meets_a_cancelled_future() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def lasts() -> None:
    await asyncio.Event().wait()


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The signals that the process sent itself."""
    sent: list[int] = []
    monkeypatch.setattr(app.os, "kill", lambda pid, number: sent.append(number) if pid == os.getpid() else None)
    return sent


@pytest.fixture
def parts(clock: ManualClock) -> Parts:
    """The parts of a process that has loops only."""
    others: dict[str, Any] = {
        field.name: None for field in dataclasses.fields(Parts) if field.name not in ("tasks", "failed")
    }
    return Parts(**{**others, "health": HealthBoard([], clock), "metrics": Metrics("worker"), "clock": clock})


class Away:
    """A dependency that is away."""

    state = BusState(False, 0, None)

    async def ping(self) -> float:
        raise Unavailable("away")

    async def read(self, *_: object) -> None:
        raise Unavailable("away")


class There(Away):
    """One that answers."""

    async def ping(self) -> float:
        return 1.0


@contextlib.asynccontextmanager
async def doing(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()


def told(parts: Parts, gauge: str) -> float | None:
    return parts.metrics.registry.get_sample_value(f"kgents_{gauge}")


ENDS = [returns, raises, meets_a_cancelled_future]


@pytest.mark.parametrize("work", ENDS)
async def test_a_loop_that_ends_has_the_process_end_and_fail(parts: Parts, signals: list[int], work: Any) -> None:
    parts.spawn(work(), "loop")
    await asyncio.wait(parts.tasks)
    assert (signals, parts.failed) == ([signal.SIGTERM], True)


@pytest.mark.parametrize("work", ENDS)
async def test_a_loop_may_end_once_the_process_does(parts: Parts, signals: list[int], work: Any) -> None:
    parts.health.draining = True
    parts.spawn(work(), "loop")
    await asyncio.wait(parts.tasks)
    assert (signals, parts.failed) == ([], False)


async def test_the_end_of_the_process_is_no_loops_failure(parts: Parts, signals: list[int]) -> None:
    parts.spawn(lasts(), "loop")
    await asyncio.sleep(0)  # so that it has begun
    await parts.stop_tasks()
    assert (signals, parts.failed) == ([], False)


@pytest.mark.parametrize(("meter", "connected"), [(There(), 1), (Away(), 0)])
async def test_a_worker_tells_of_a_meter_that_it_sends_nothing(parts: Parts, meter: Any, connected: int) -> None:
    parts.meter = meter
    async with doing(app._watch_meter(parts)):
        await eventually(lambda: told(parts, "meter_connected") == connected)


async def test_an_outbox_whose_database_is_away_is_not_told_as_it_was(parts: Parts) -> None:
    parts.store = parts.bus = Away()  # type: ignore[assignment]
    parts.metrics.outbox(3, 4.0)
    async with doing(app._measure(parts)):
        await eventually(lambda: math.isnan(told(parts, "outbox_backlog_messages") or 0))


def test_a_process_without_a_name_gets_one_that_no_other_has() -> None:
    assert app._named(Settings(), "worker").process_name == f"{socket.gethostname()}-worker-{os.getpid()}"


def test_a_name_that_was_given_stays() -> None:
    assert app._named(Settings(process_name="api-2"), "api").process_name == "api-2"
