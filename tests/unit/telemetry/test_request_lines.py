"""The lines of requests: one each, at once while they are few, and together while they are many."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from kgents.telemetry import logs


class Stream(io.StringIO):
    """What was written, and how often."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def stream() -> Iterator[Stream]:
    found = Stream()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure("info", "api", stream=found)
    yield found
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


def ask(count: int) -> None:
    for number in range(count):
        with logs.bound(request_id=f"req_{number}"):
            logs.request("GET", "/v1/agents", 200, 1.5)


async def test_a_line_tells_of_the_request_and_of_what_was_bound_when_it_was_answered(stream: Stream) -> None:
    ask(1)
    logs.flush()
    (line,) = stream.lines
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "request_id": "req_0",
        "method": "GET",
        "route": "/v1/agents",
        "status": 200,
        "duration_ms": 1.5,
        "event": "request",
        "level": "info",
        "process": "api",
    }


async def test_a_few_lines_are_written_by_the_next_turn_of_the_loop(stream: Stream) -> None:
    ask(logs.FEW)
    await asyncio.sleep(0)
    assert len(stream.lines) == logs.FEW


async def test_many_lines_are_written_together(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "WAIT", 60.0)  # however long the machine stands still meanwhile
    for _ in range(10):
        ask(10)
        await asyncio.sleep(0)
    logs.flush()
    assert [line["request_id"] for line in stream.lines] == [f"req_{number}" for number in range(10)] * 10
    assert stream.writes <= 3


async def test_what_waits_is_written_by_itself(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "WAIT", 0.01)
    ask(logs.FEW)
    await asyncio.sleep(0)
    ask(5)
    async with asyncio.timeout(10):
        while len(stream.lines) < logs.FEW + 5:  # noqa: ASYNC110 - a stream tells nobody
            await asyncio.sleep(0.001)


async def test_not_more_than_so_many_wait(stream: Stream) -> None:
    ask(logs.MOST_WAITING * 3)
    assert len(stream.lines) >= logs.MOST_WAITING * 2


async def test_a_line_of_something_else_comes_after_the_requests_before_it(stream: Stream) -> None:
    ask(logs.FEW)
    await asyncio.sleep(0)
    ask(3)
    structlog.get_logger("test").warning("something else")
    assert [line["event"] for line in stream.lines[logs.FEW :]] == [*["request"] * 3, "something else"]


def test_lines_that_a_loop_left_behind_do_not_keep_those_of_the_next_one(stream: Stream) -> None:
    async def some() -> None:
        ask(1)
        await asyncio.sleep(0)

    asyncio.run(some())
    asyncio.run(some())
    assert len(stream.lines) == 2


async def test_none_are_written_while_their_level_is_not_wanted(stream: Stream) -> None:
    logs.configure("warning", "api", stream=stream)
    ask(1)
    logs.flush()
    await asyncio.sleep(0)
    assert stream.lines == []
