"""The composition root: what it does when a loop ends, and how a process is called."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
from typing import Any

import pytest

from kgents import app
from kgents.app import Parts
from kgents.clock import ManualClock
from kgents.config import Settings
from kgents.telemetry.health import HealthBoard


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
    return Parts(**{**others, "health": HealthBoard([], clock)})


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


def test_a_process_without_a_name_gets_one_that_no_other_has() -> None:
    assert app._named(Settings(), "worker").process_name == f"{socket.gethostname()}-worker-{os.getpid()}"


def test_a_name_that_was_given_stays() -> None:
    assert app._named(Settings(process_name="api-2"), "api").process_name == "api-2"
