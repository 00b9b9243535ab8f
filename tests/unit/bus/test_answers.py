"""What a server answers to a message."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kgents.bus.nats import Bus, BusUnavailable
from kgents.clock import SystemClock
from kgents.config import Settings


@pytest.mark.parametrize("data", [b"", b"x", b"5", b"{}", b'{"error": 5}'])
async def test_an_answer_that_can_not_be_read_stores_nothing(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    bus = Bus(Settings(), SystemClock())

    async def answer(*_: object, **__: object) -> Any:
        return SimpleNamespace(data=data)

    monkeypatch.setattr(bus._jetstream, "request", answer)
    with pytest.raises(BusUnavailable, match="can't be read"):
        await bus.publish("kgents.events.run_1", b"event")
