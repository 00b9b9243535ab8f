"""Broadcasts reach every process that listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kgents.bus.nats import Bus, Message
from tests.support.nats import NatsServer
from tests.support.waiting import eventually

MakeBus = Callable[..., Bus]


async def test_every_listener_hears_it(bus: Bus) -> None:
    async with bus.listen("kgents.control.*") as first, bus.listen("kgents.control.cancel") as second:
        await bus.broadcast("kgents.control.cancel", b"run")
        heard = [await asyncio.wait_for(anext(listener), 5) for listener in (first, second)]
    assert heard == [Message("kgents.control.cancel", b"run")] * 2


async def test_another_process_hears_it(make_bus: MakeBus, bus: Bus) -> None:
    other = make_bus()
    await other.start()
    await eventually(lambda: other.state.connected)
    async with bus.listen("kgents.control.*") as listener:
        await bus.ping()
        await other.broadcast("kgents.control.cancel", b"run")
        assert (await asyncio.wait_for(anext(listener), 5)).data == b"run"


async def test_a_listener_hears_again_after_a_restart(bus: Bus, nats: NatsServer) -> None:
    async with bus.listen("kgents.control.*") as listener:
        nats.stop()
        await asyncio.to_thread(nats.start)
        await eventually(lambda: bus.state.connected)
        await bus.broadcast("kgents.control.cancel", b"run")
        assert (await asyncio.wait_for(anext(listener), 5)).data == b"run"


async def test_listening_may_begin_before_there_is_a_connection(make_bus: MakeBus) -> None:
    bus = make_bus()
    async with bus.listen("kgents.control.*") as listener:
        await bus.start()
        await eventually(lambda: bus.state.connected)
        await bus.broadcast("kgents.control.cancel", b"run")
        assert (await asyncio.wait_for(anext(listener), 5)).data == b"run"


async def test_a_closed_listener_hears_nothing(bus: Bus) -> None:
    before = len(bus._connection.subscriptions)
    async with bus.listen("kgents.control.*"):
        pass
    assert len(bus._connection.subscriptions) == before
