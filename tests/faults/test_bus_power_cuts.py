"""The power of every nats-server is cut while messages are stored: none that was acknowledged is lost, whether one
server keeps them or three.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kgents.bus.nats import Ack, Bus, BusUnavailable
from kgents.bus.streams import USAGE_STREAM, USAGE_SUBJECT
from kgents.clock import SystemClock
from tests.faults.disk import Disk, a_disk
from tests.faults.systems import FULL, new_seed
from tests.support.nats_cluster import NatsCluster
from tests.support.results import record
from tests.support.waiting import eventually

CUTS, EACH = (20, 2_600) if FULL else (1, 500)  # messages that are acknowledged, at least, before each cut
BATCH = 100
READERS = 50
COMMAND = "tests/faults/test_bus_power_cuts.py"


@asynccontextmanager
async def a_bus(cluster: NatsCluster) -> AsyncIterator[Bus]:
    """A bus on the cluster, once its streams are served.

    The stream of run events is written behind, so a power cut may leave one that can't be recovered. The server calls
    itself unhealthy until the bus has made it again.
    """
    bus = Bus(cluster.settings(), SystemClock())
    await bus.start()
    try:
        await eventually(lambda: bus.state.connected, seconds=60, what="the bus is connected")
        await eventually(cluster.healthy, seconds=60, what="the servers are healthy")
        yield bus
    finally:
        await bus.close()


class Publisher:
    """Stores messages for as long as it can, and remembers which of them were acknowledged."""

    def __init__(self, bus: Bus, numbers: Iterator[int]) -> None:
        self._bus = bus
        self._numbers = numbers
        self.acknowledged: set[int] = set()

    async def run(self) -> None:
        while True:
            batch = [next(self._numbers) for _ in range(BATCH)]
            messages = [(str(number), b"%d" % number) for number in batch]
            results = await self._bus.publish_many(USAGE_SUBJECT, messages, timeout=2)
            acked = {number for number, result in zip(batch, results, strict=True) if isinstance(result, Ack)}
            self.acknowledged |= acked
            if not acked:
                return


async def stored(bus: Bus, first: int) -> tuple[set[int], int]:
    """The messages that the stream has, from a sequence on, and its last sequence."""
    state = (await _ask(bus, f"STREAM.INFO.{USAGE_STREAM}"))["state"]
    last = state["last_seq"]
    sequences = iter(range(max(first, state["first_seq"]), last + 1))
    found: set[int] = set()

    async def read() -> None:
        for sequence in sequences:
            answer = await _ask(bus, f"STREAM.MSG.GET.{USAGE_STREAM}", {"seq": sequence})
            found.add(int(base64.b64decode(answer["message"]["data"])))

    await asyncio.gather(*(read() for _ in range(READERS)))
    return found, last


async def _ask(bus: Bus, name: str, body: Any = None) -> dict[str, Any]:
    """Call JetStream's API. While servers choose a leader nobody may answer, so it is asked again."""

    async def answered() -> dict[str, Any] | None:
        with contextlib.suppress(BusUnavailable):
            return await bus._jetstream.api(name, body, timeout=3)
        return None

    answer: dict[str, Any] = await eventually(answered, seconds=60, what=f"an answer to {name}")
    return answer


async def cut_power(folder: Path, servers: int, sync: str) -> tuple[int, int]:
    """Cut the power of all servers, again and again: the messages that were acknowledged, and how many are lost."""
    seed = new_seed()
    random = Random(seed)
    numbers = count()
    acknowledged: set[int] = set()
    lost: set[int] = set()
    with a_disk() as disk:
        cluster = NatsCluster(folder, servers=servers, stores=disk.path, sync=sync)
        cluster.start()
        try:
            first = 1
            for _ in range(CUTS):
                before_the_cut = EACH + random.randrange(EACH // 10)
                async with a_bus(cluster) as bus:
                    acked = await _publish_until_cut(bus, cluster, disk, numbers, before_the_cut)
                cluster.stop()  # they are dead
                cluster.start()
                async with a_bus(cluster) as bus:
                    found, last = await stored(bus, first)
                acknowledged |= acked
                lost |= acked - found
                first = last + 1
            async with a_bus(cluster) as bus:
                found, _ = await stored(bus, 1)  # a later cut takes nothing of what earlier ones left, either
            lost |= acknowledged - found
        finally:
            cluster.stop()
    record(
        "Acknowledged means on the disk" + ("" if sync == "always" else f", control: sync_interval {sync}"),
        COMMAND,
        f"NATS, {servers} server(s): {CUTS} power cuts of all at once, {len(acknowledged):,} acknowledged messages: "
        f"{len(lost):,} lost",
        seed,
    )
    print(f"{servers} servers, {sync}: {len(acknowledged)} acknowledged, {len(lost)} lost")
    return len(acknowledged), len(lost)


async def _publish_until_cut(
    bus: Bus, cluster: NatsCluster, disk: Disk, numbers: Iterator[int], before_the_cut: int
) -> set[int]:
    """Store messages, cut the power once so many are acknowledged, and answer which were."""
    publisher = Publisher(bus, numbers)
    publishing = asyncio.create_task(publisher.run())
    await eventually(lambda: len(publisher.acknowledged) >= before_the_cut, seconds=120, what="messages are stored")
    await asyncio.to_thread(disk.cut, [process.pid for process in cluster.processes.values()])
    await publishing
    return publisher.acknowledged


@pytest.mark.parametrize("servers", [1, 3])
async def test_a_power_cut_loses_no_acknowledged_message(tmp_path: Path, servers: int) -> None:
    acknowledged, lost = await cut_power(tmp_path, servers, "always")
    assert acknowledged >= CUTS * EACH
    assert lost == 0


@pytest.mark.parametrize("servers", [1, 3])
async def test_with_the_servers_own_default_a_power_cut_is_found_to_lose(tmp_path: Path, servers: int) -> None:
    _, lost = await cut_power(tmp_path, servers, "2m")
    assert lost
