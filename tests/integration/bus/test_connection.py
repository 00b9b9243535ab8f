"""Being away and coming back: the bus starts without a server, notices that one is gone, and finds it again."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from kgents.bus.nats import Ack, Bus, BusUnavailable
from tests.support.nats import NatsServer
from tests.support.proxy import FaultyProxy
from tests.support.waiting import eventually

MakeBus = Callable[..., Bus]


async def freeze(nats: NatsServer) -> None:
    """Stop the server's process as it is; on return none of its threads runs."""
    nats.process.send(signal.SIGSTOP)
    threads = Path(f"/proc/{nats.process.pid}/task")
    await eventually(lambda: all(" T " in (thread / "stat").read_text() for thread in threads.iterdir()))


async def test_start_without_a_server_connects_when_it_appears(make_bus: MakeBus, nats: NatsServer) -> None:
    nats.stop()
    bus = make_bus()
    await bus.start()
    await eventually(lambda: bus.state.error)
    assert not bus.state.connected
    await asyncio.to_thread(nats.start)
    await eventually(lambda: bus.state.connected, seconds=5)
    assert await bus.publish("kgents.usage", b"x") == Ack(1, duplicate=False)


async def test_the_error_says_that_nothing_listens(make_bus: MakeBus, nats: NatsServer) -> None:
    nats.stop()
    bus = make_bus()
    await bus.start()
    await eventually(lambda: "nothing listens there" in (bus.state.error or ""))


async def test_a_wrong_password_is_told_without_showing_it(
    make_bus: MakeBus, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    bus = make_bus(nats_password=SecretStr("wrong-secret"))
    await bus.start()
    error = await eventually(lambda: bus.state.error)
    assert "refused the user name or password" in error
    assert "wrong-secret" not in error + caplog.text + "".join(capfd.readouterr())


async def test_credentials_in_the_url_are_not_shown(make_bus: MakeBus, nats: NatsServer) -> None:
    nats.stop()
    bus = make_bus(nats_url=nats.url.replace("://", "://name:in-the-url@"), nats_user="")
    await bus.start()
    error = await eventually(lambda: bus.state.error)
    assert "in-the-url" not in error


async def test_a_later_server_of_the_list_is_used(
    make_bus: MakeBus, nats: NatsServer, free_port: Callable[[], int]
) -> None:
    bus = make_bus(nats_url=f"nats://127.0.0.1:{free_port()}, {nats.url}")
    await bus.start()
    await eventually(lambda: bus.state.connected, seconds=5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_restart_is_survived(bus: Bus, nats: NatsServer, number: signal.Signals) -> None:
    await bus.publish("kgents.usage", b"before")
    nats.stop(number)
    await eventually(lambda: not bus.state.connected, seconds=5)
    await asyncio.to_thread(nats.start)
    await eventually(lambda: bus.state.connected, seconds=5)
    assert (await bus.pending("KGENTS_USAGE")).messages == 1


async def test_a_server_that_lost_its_files_gets_the_streams_again(
    bus: Bus, nats: NatsServer, nats_files: Path
) -> None:
    nats.stop(signal.SIGKILL)
    await eventually(lambda: not bus.state.connected, seconds=5)
    shutil.rmtree(nats_files)
    await asyncio.to_thread(nats.start)
    await eventually(lambda: bus.state.connected, seconds=5)
    assert await bus.publish("kgents.runs", b"x") == Ack(1, duplicate=False)


async def test_a_frozen_server_is_noticed_and_found_again(bus: Bus, nats: NatsServer) -> None:
    await freeze(nats)
    await eventually(lambda: not bus.state.connected, seconds=5)
    assert "does not answer" in (bus.state.error or "")
    nats.process.send(signal.SIGCONT)
    await eventually(lambda: bus.state.connected, seconds=5)


async def test_ping_notices_a_frozen_server_within_its_timeout(bus: Bus, nats: NatsServer) -> None:
    await freeze(nats)
    started = asyncio.get_running_loop().time()
    with pytest.raises(BusUnavailable):
        await bus.ping()
    assert asyncio.get_running_loop().time() - started < 2


async def test_a_frozen_server_with_a_full_socket_holds_nothing_up(bus: Bus, nats: NatsServer) -> None:
    await freeze(nats)
    flood = [asyncio.create_task(bus.publish("kgents.usage", bytes(900_000))) for _ in range(40)]
    await eventually(lambda: not bus.state.connected, seconds=5)
    results = await asyncio.wait_for(asyncio.gather(*flood, return_exceptions=True), 6)
    assert all(isinstance(result, BusUnavailable) for result in results)
    nats.process.send(signal.SIGCONT)
    await eventually(lambda: bus.state.connected, seconds=5)


async def test_what_is_in_flight_fails_with_the_connection(make_bus: MakeBus, nats: NatsServer) -> None:
    proxy = FaultyProxy(nats.port)
    try:
        bus = make_bus(nats_url=f"nats://127.0.0.1:{proxy.port}")
        await bus.start()
        await eventually(lambda: bus.state.connected)
        proxy.slow(3)
        publishing = asyncio.create_task(bus.publish("kgents.usage", b"x", timeout=60))
        await asyncio.sleep(0)
        proxy.cut()
        with pytest.raises(BusUnavailable):
            await asyncio.wait_for(publishing, 3)
    finally:
        proxy.close()


async def test_state_tells_since_when(bus: Bus, nats: NatsServer) -> None:
    before = bus.state
    nats.stop()
    await eventually(lambda: not bus.state.connected)
    assert bus.state.since > before.since


class TestClose:
    async def test_ends_with_a_frozen_server_too(self, bus: Bus, nats: NatsServer) -> None:
        await freeze(nats)
        await asyncio.wait_for(bus.close(), 5)

    async def test_ends_without_ever_having_connected(self, make_bus: MakeBus, nats: NatsServer) -> None:
        nats.stop()
        bus = make_bus()
        await bus.start()
        await asyncio.wait_for(bus.close(), 5)

    async def test_ends_the_iterators(self, bus: Bus) -> None:
        waiting = [
            asyncio.create_task(anext(iterator, "ended"))
            for iterator in (
                bus.events("r"),
                bus.listen("kgents.control.*"),
                bus.consume("KGENTS_RUNS", "workers", batch=1, ack_wait=5),
            )
        ]
        await asyncio.sleep(0.1)
        await bus.close()
        assert await asyncio.wait_for(asyncio.gather(*waiting), 5) == ["ended"] * 3

    async def test_afterwards_every_operation_is_refused(self, bus: Bus) -> None:
        await bus.close()
        with pytest.raises(BusUnavailable, match="closed"):
            await bus.publish("kgents.usage", b"x")
