"""Awaiting a condition, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

PATIENCE = 60.0  # seconds, on a machine that runs other tests beside this: how long a thing takes, the benchmarks say
_PAUSE = 0.02  # seconds between two looks


def wait_until(condition: Callable[[], Any], *, seconds: float = PATIENCE, what: str = "") -> Any:
    """Call `condition` until it answers something true, and give that. Raises TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := condition():
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what or inspect.getsource(condition).strip()}")
        time.sleep(_PAUSE)


async def eventually(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]], *, seconds: float = PATIENCE, what: str = ""
) -> Any:
    """As `wait_until`, for a coroutine function or a plain one, without blocking the event loop."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what or inspect.getsource(condition).strip()}")
        await asyncio.sleep(_PAUSE)
