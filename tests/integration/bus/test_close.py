"""Closing a bus ends soon, whatever it is doing."""

from __future__ import annotations

import asyncio

from kgents.bus import connection
from tests.support.waiting import eventually


async def test_a_bus_that_asks_whether_the_server_is_there_is_closed_all_the_same(make_bus, monkeypatch):
    monkeypatch.setattr(connection, "HEARTBEAT", 0.0)  # so that it asks all the time
    for _ in range(30):
        bus = make_bus()
        await bus.start()
        await eventually(lambda bus=bus: bus.state.connected, what="the bus is connected")
        async with asyncio.timeout(5):
            await bus.close()
