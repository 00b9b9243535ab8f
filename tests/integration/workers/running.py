"""Running a worker's loop for a while, and looking at what it has done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from kgents.store import outbox
from kgents.store.engine import Scope, Store
from kgents.telemetry.metrics import Metrics


@asynccontextmanager
async def running(*loops: Any) -> AsyncIterator[None]:
    """The loops run until the block ends. One that fails fails the test."""
    tasks = [asyncio.create_task(loop.run()) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        # Here, so that it is told as well where the block failed because of it.
        failures = [end for end in ended if isinstance(end, Exception)]
        assert not failures, failures


async def waiting_in(store: Store) -> int:
    """How many messages the outbox holds."""
    return (await store.read(Scope.system(), outbox.backlog)).count


def count(metrics: Metrics, name: str, **labels: str) -> float:
    """The value of a metric; 0 where nothing was counted."""
    return metrics.registry.get_sample_value(f"kgents_{name}", labels) or 0
