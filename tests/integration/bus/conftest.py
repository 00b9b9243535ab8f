"""Buses over the test's nats-server."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from kgents.bus.nats import Bus
from kgents.clock import SystemClock
from kgents.config import Settings
from tests.support.nats import NatsServer
from tests.support.waiting import eventually

MakeBus = Callable[..., Bus]


@pytest.fixture
async def make_bus(nats: NatsServer) -> AsyncIterator[MakeBus]:
    """A function that makes a bus, not started; settings that it is given replace the right ones."""
    made: list[Bus] = []

    def make(**settings: object) -> Bus:
        values = {"nats_url": nats.url, "nats_user": nats.user, "nats_password": SecretStr(nats.password), **settings}
        bus = Bus(Settings(**values), SystemClock())
        made.append(bus)
        return bus

    yield make
    for bus in made:
        await bus.close()


@pytest.fixture
def nats_files(nats: NatsServer) -> Path:
    """The folder in which the server keeps what JetStream stores."""
    with urllib.request.urlopen(f"{nats.monitor_url}/varz") as answer:
        return Path(json.load(answer)["jetstream"]["config"]["store_dir"])


@pytest.fixture
async def bus(make_bus: MakeBus) -> Bus:
    """A bus that is connected."""
    bus = make_bus()
    await bus.start()
    await eventually(lambda: bus.state.connected, what="the bus is connected")
    return bus
