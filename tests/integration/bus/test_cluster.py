"""The bus over three servers, of which one dies."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kgents.bus import nats as nats_bus
from kgents.bus.nats import Ack, Bus, BusUnavailable, WrongLastSequence
from kgents.clock import SystemClock
from tests.support.nats_cluster import NatsCluster
from tests.support.waiting import eventually


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[NatsCluster]:
    cluster = NatsCluster(tmp_path)
    cluster.start()
    await eventually(cluster.healthy, seconds=30)
    yield cluster
    cluster.stop()


@pytest.fixture
async def bus(cluster: NatsCluster) -> AsyncIterator[Bus]:
    bus = Bus(cluster.settings(), SystemClock())
    await bus.start()
    await eventually(lambda: bus.state.connected, seconds=30)
    yield bus
    await bus.close()


async def test_queues_are_on_three_disks_and_events_in_three_memories(bus: Bus) -> None:
    found = {}
    for stream in ("KGENTS_USAGE", "KGENTS_RUNS", "KGENTS_EVENTS"):
        config = (await bus._jetstream.api(f"STREAM.INFO.{stream}"))["config"]
        found[stream] = (config["storage"], config["num_replicas"])
    assert found == {"KGENTS_USAGE": ("file", 3), "KGENTS_RUNS": ("file", 3), "KGENTS_EVENTS": ("memory", 3)}


async def test_a_server_that_died_is_missed_among_those_that_have_the_stream(cluster: NatsCluster, bus: Bus) -> None:
    async def kept_by(number: int) -> bool:
        with contextlib.suppress(BusUnavailable):
            return (await bus.pending("KGENTS_USAGE")).replicas_current == number
        return False

    await eventually(lambda: kept_by(3), seconds=30)
    cluster.processes[await leader_of(bus, "KGENTS_USAGE")].stop(signal.SIGKILL)
    await eventually(lambda: kept_by(2), seconds=30)
    assert (await bus.pending("KGENTS_USAGE", timeout=10)).replicas == 3


async def test_a_stream_without_a_majority_fails_however_long_ago_somebody_tried(
    cluster: NatsCluster, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def without_majority() -> bool:
        try:
            return (await bus.pending("KGENTS_USAGE")).replicas_current < 2
        except BusUnavailable:
            return True

    monkeypatch.setattr(nats_bus, "STALE", 0.0)
    for server in list(cluster.processes.values())[1:]:
        server.stop(signal.SIGKILL)
    await eventually(without_majority, seconds=30)
    with pytest.raises(BusUnavailable):
        await bus.publish("kgents.usage", b"x", timeout=1)
    assert list(await bus.failing()) == ["kgents.usage"]


async def leader_of(bus: Bus, stream: str) -> str:
    leader: str = (await bus._jetstream.api(f"STREAM.INFO.{stream}"))["cluster"]["leader"]
    return leader


async def test_the_death_of_the_events_leader_costs_followers_nothing(cluster: NatsCluster, bus: Bus) -> None:
    many = 200

    async def write() -> None:
        last = 0
        for number in range(1, many + 1):
            while True:
                try:
                    last = (
                        await bus.publish("kgents.events.r", b"%d" % number, expect_last_on_subject=last, timeout=1)
                    ).seq
                except WrongLastSequence:  # it was stored, and only the answer was lost
                    stored = await bus.last_event("r")
                    assert stored is not None
                    assert stored[1] == b"%d" % number
                    last = stored[0]
                except BusUnavailable:
                    await asyncio.sleep(0.1)
                    continue
                break
            if number == many // 2:
                cluster.processes[await leader_of(bus, "KGENTS_EVENTS")].stop(signal.SIGKILL)

    async def read() -> list[bytes]:
        async with bus.events("r") as events:
            return [await anext(events) for _ in range(many)]

    reading = [asyncio.create_task(read()) for _ in range(10)]
    await asyncio.wait_for(write(), 60)
    expected = [b"%d" % number for number in range(1, many + 1)]
    assert all(seen == expected for seen in await asyncio.wait_for(asyncio.gather(*reading), 30))


async def test_the_death_of_the_usage_leader_loses_nothing(cluster: NatsCluster, bus: Bus) -> None:
    names = {f"event-{number}" for number in range(1000)}
    acked: set[str] = set()
    handled: set[str] = set()

    async def produce() -> None:
        leader = await leader_of(bus, "KGENTS_USAGE")
        while left := sorted(names - acked)[:100]:
            results = await bus.publish_many("kgents.usage", [(name, name.encode()) for name in left], timeout=2)
            acked.update(name for name, result in zip(left, results, strict=True) if isinstance(result, Ack))
            await asyncio.sleep(0.02)
            if len(acked) >= 500:
                cluster.processes[leader].stop(signal.SIGKILL)

    async def handle() -> None:
        async with bus.consume("KGENTS_USAGE", "sink", batch=50, ack_wait=2) as consumer:
            async for delivery in consumer:
                handled.add(delivery.data.decode())
                with contextlib.suppress(BusUnavailable):
                    await delivery.ack()

    async def is_empty() -> bool:
        with contextlib.suppress(BusUnavailable):
            return (await bus.pending("KGENTS_USAGE")).messages == 0
        return False

    handling = asyncio.create_task(handle())
    await asyncio.wait_for(produce(), 60)
    await eventually(is_empty, seconds=60)
    handling.cancel()
    assert handled == names
