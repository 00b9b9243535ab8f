"""Following runs: what is stored, then what comes; in order, nothing missing, nothing twice."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from kgents.bus.followers import LIVE_LIMIT, READ_MESSAGES
from kgents.bus.nats import Bus, BusUnavailable
from tests.support.nats import NatsServer
from tests.support.proxy import FaultyProxy
from tests.support.waiting import eventually

MakeBus = Callable[..., Bus]


def payload(number: int) -> bytes:
    return b"event %d" % number


def sequence(first: int, last: int) -> list[bytes]:
    return [payload(number) for number in range(first, last + 1)]


async def publish(bus: Bus, first: int, last: int, run: str = "r") -> None:
    for number in range(first, last + 1):
        await bus.publish(f"kgents.events.{run}", payload(number))


async def read(bus: Bus, count: int, run: str = "r", seconds: float = 20.0) -> list[bytes]:
    async with bus.events(run) as events, asyncio.timeout(seconds):
        return [await anext(events) for _ in range(count)]


async def test_what_is_stored_comes_first(bus: Bus) -> None:
    await publish(bus, 1, 5)
    assert await read(bus, 5) == sequence(1, 5)


async def test_more_than_one_read_holds(bus: Bus) -> None:
    many = 3 * READ_MESSAGES + 7
    await publish(bus, 1, many)
    assert await read(bus, many) == sequence(1, many)


async def test_large_events_come_whole(bus: Bus) -> None:
    large = [bytes([number]) * 200_000 for number in range(5)]
    for data in large:
        await bus.publish("kgents.events.r", data)
    assert await read(bus, 5) == large


async def test_what_comes_later_follows(bus: Bus) -> None:
    reading = asyncio.create_task(read(bus, 10))
    await asyncio.sleep(0.1)
    await publish(bus, 1, 10)
    assert await reading == sequence(1, 10)


async def test_other_runs_are_not_heard(bus: Bus) -> None:
    reading = asyncio.create_task(read(bus, 6))
    for number in range(1, 7):
        await publish(bus, number, number, "other")
        await publish(bus, number, number)
    assert await reading == sequence(1, 6)


async def test_followers_that_join_at_any_moment_see_everything(make_bus: MakeBus, bus: Bus) -> None:
    other = make_bus()
    await other.start()
    chance = random.Random(3)
    many = 400

    async def join_late(follower_bus: Bus) -> list[bytes]:
        await asyncio.sleep(chance.random() * 1.5)
        return await read(follower_bus, many)

    reading = [asyncio.create_task(join_late(chance.choice([bus, other]))) for _ in range(50)]
    for number in range(1, many + 1):
        await publish(bus, number, number)
        if chance.random() < 0.2:
            await asyncio.sleep(chance.random() * 0.02)
    assert all(seen == sequence(1, many) for seen in await asyncio.gather(*reading))


async def test_a_slow_follower_is_bounded_in_memory_and_misses_nothing(bus: Bus) -> None:
    many = 10 * LIVE_LIMIT
    async with bus.events("r") as events, asyncio.timeout(20):
        await publish(bus, 1, 1)
        seen = [await anext(events)]
        await publish(bus, 2, many)
        assert len(events._live) <= LIVE_LIMIT
        while len(seen) < many:
            seen.append(await anext(events))
    assert seen == sequence(1, many)


async def test_a_wait_that_is_cancelled_loses_nothing(bus: Bus) -> None:
    seen = []
    publishing = asyncio.create_task(publish(bus, 1, 300))
    async with bus.events("r") as events:
        while len(seen) < 300:
            try:
                seen.append(await asyncio.wait_for(anext(events), 0.001))
            except TimeoutError:
                continue
    await publishing
    assert seen == sequence(1, 300)


async def test_the_last_follower_of_a_run_ends_its_subscription(bus: Bus) -> None:
    before = len(bus._connection.subscriptions)
    async with bus.events("r") as first, bus.events("r") as second:
        await publish(bus, 1, 1)
        assert await anext(first) == await anext(second) == payload(1)
        assert len(bus._connection.subscriptions) == before + 1
    assert len(bus._connection.subscriptions) == before


async def test_what_went_missing_on_the_way_is_read_from_the_stream(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bus.events("r") as events, asyncio.timeout(20):
        await publish(bus, 1, 2)
        seen = [await anext(events), await anext(events)]
        with monkeypatch.context() as patched:
            patched.setattr(events, "heard", lambda event: None)
            await publish(bus, 3, 4)
            await bus.ping()
        await publish(bus, 5, 5)
        while len(seen) < 5:
            seen.append(await anext(events))
    assert seen == sequence(1, 5)


async def test_a_missing_last_event_is_found_when_nothing_follows(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kgents.bus.followers.IDLE_CHECK", 0.3)
    async with bus.events("r") as events, asyncio.timeout(20):
        await publish(bus, 1, 1)
        assert await anext(events) == payload(1)
        with monkeypatch.context() as patched:
            patched.setattr(events, "heard", lambda event: None)
            await publish(bus, 2, 2)
            await bus.ping()
        assert await anext(events) == payload(2)


class TestRestart:
    async def test_followers_go_on_where_they_were(self, bus: Bus, nats: NatsServer) -> None:
        async with bus.events("r") as events, asyncio.timeout(30):
            await publish(bus, 1, 50)
            seen = [await anext(events) for _ in range(50)]
            waiting = asyncio.create_task(anext(events))
            nats.stop()
            await asyncio.to_thread(nats.start)
            await eventually(lambda: bus.state.connected)
            await publish(bus, 51, 100)
            seen.append(await waiting)
            seen += [await anext(events) for _ in range(49)]
        assert seen == sequence(1, 100)

    async def test_a_cut_connection_makes_no_gap_and_no_repeat(
        self, make_bus: MakeBus, bus: Bus, nats: NatsServer
    ) -> None:
        proxy = FaultyProxy(nats.port)
        try:
            far = make_bus(nats_url=f"nats://127.0.0.1:{proxy.port}")
            await far.start()
            reading = [asyncio.create_task(read(far, 300, seconds=30)) for _ in range(20)]
            for number in range(1, 301):
                await publish(bus, number, number)
                await asyncio.sleep(0.005)
                if number % 100 == 50:
                    await asyncio.to_thread(proxy.cut)
            assert all(seen == sequence(1, 300) for seen in await asyncio.gather(*reading))
        finally:
            proxy.close()

    async def test_a_lost_stream_is_an_error(self, bus: Bus, nats: NatsServer, nats_files: Path) -> None:
        async with bus.events("r") as events, asyncio.timeout(30):
            await publish(bus, 1, 3)
            assert [await anext(events) for _ in range(3)] == sequence(1, 3)
            nats.stop(signal.SIGKILL)
            shutil.rmtree(nats_files)
            await asyncio.to_thread(nats.start)
            with pytest.raises(BusUnavailable) as failure:
                await anext(events)
        assert failure.value.code == "events-lost"

    async def test_other_events_under_the_same_sequences_are_an_error(
        self, bus: Bus, nats: NatsServer, nats_files: Path
    ) -> None:
        async with bus.events("r") as events, asyncio.timeout(30):
            await publish(bus, 1, 3)
            assert [await anext(events) for _ in range(3)] == sequence(1, 3)
            nats.stop(signal.SIGKILL)
            shutil.rmtree(nats_files)
            await asyncio.to_thread(nats.start)
            await eventually(lambda: bus.state.connected)
            await publish(bus, 1, 5)
            with pytest.raises(BusUnavailable) as failure:
                await anext(events)
        assert failure.value.code == "events-lost"

    async def test_a_missing_stream_is_an_error_after_a_while(self, bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("kgents.bus.followers.PATIENCE", 0.5)
        await bus._jetstream.api("STREAM.DELETE.KGENTS_EVENTS")
        with pytest.raises(BusUnavailable):
            await read(bus, 1)
