"""Streams are copied with every message, and brought back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.msg import Msg
from pydantic import SecretStr

from kgents import config
from kgents.bus import backup
from kgents.bus.admin import api, connected, info
from kgents.bus.backup import STREAMS, back_up, restore
from kgents.bus.model import BusUnavailable
from kgents.bus.nats import Bus
from kgents.bus.streams import EVENTS_SUBJECT, RUNS_SUBJECT, USAGE_STREAM, USAGE_SUBJECT, definitions
from kgents.cli import backup as cli
from kgents.config import Settings
from kgents.errors import Conflict, Unprocessable
from tests.integration.bus.conftest import MakeBus
from tests.support.nats import NatsServer
from tests.support.nats_cluster import NatsCluster
from tests.support.waiting import eventually

MESSAGES = 700
NAME_IN_USE = 10058  # of a stream that has another configuration, such as one that is being restored


def nothing(_copied: object) -> None:
    pass


@pytest.fixture
def settings(nats: NatsServer) -> Settings:
    return Settings(nats_url=nats.url, nats_user=nats.user, nats_password=SecretStr(nats.password))


async def fill(bus: Bus) -> None:
    usage = [(f"u{number}", b"usage %d " % number * 50) for number in range(MESSAGES)]
    assert not [ack for ack in await bus.publish_many(USAGE_SUBJECT, usage) if isinstance(ack, Exception)]
    await bus.publish_many(RUNS_SUBJECT, [(f"r{number}", b"run") for number in range(10)])
    await bus.publish(f"{EVENTS_SUBJECT}.run_1", b"event")


async def lose(bus: Bus) -> None:
    for stream in STREAMS:
        await bus._jetstream.api(f"STREAM.DELETE.{stream}")


async def payloads(bus: Bus, count: int) -> list[bytes]:
    found = []
    async with bus.consume(USAGE_STREAM, "test", batch=100, ack_wait=30.0) as deliveries:
        async for delivery in deliveries:
            found.append(delivery.data)
            await delivery.ack()
            if len(found) == count:
                return found
    raise AssertionError


async def test_every_message_comes_back(bus: Bus, settings: Settings, tmp_path: Path) -> None:
    await fill(bus)
    copied = await back_up(settings, tmp_path / "copy", nothing)
    await lose(bus)
    restored = await restore(settings, tmp_path / "copy", nothing)

    assert [(each.stream, each.messages) for each in copied] == list(zip(STREAMS, (MESSAGES, 10, 1), strict=True))
    assert [(each.stream, each.messages) for each in restored] == [(each.stream, each.messages) for each in copied]
    assert sorted(await payloads(bus, MESSAGES)) == sorted(b"usage %d " % number * 50 for number in range(MESSAGES))
    assert (await bus.last_event("run_1"))[1] == b"event"


async def test_a_stream_with_messages_is_not_replaced(bus: Bus, settings: Settings, tmp_path: Path) -> None:
    await fill(bus)
    await back_up(settings, tmp_path / "copy", nothing)

    with pytest.raises(Conflict, match=f"{USAGE_STREAM} has {MESSAGES} messages"):
        await restore(settings, tmp_path / "copy", nothing)

    assert (await bus.pending(USAGE_STREAM)).messages == MESSAGES


async def test_nobody_else_on_the_machine_reads_a_copy(
    bus: Bus, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(bus)
    monkeypatch.setattr(config, "load", lambda: settings)
    before = os.umask(0o022)
    try:
        await asyncio.to_thread(cli.back_up, tmp_path / "copies", 0)
    finally:
        os.umask(before)

    made = [tmp_path / "copies", *(tmp_path / "copies").rglob("*")]
    assert len(made) == 2 + len(STREAMS) * 3 + 1
    assert {path: oct(path.stat().st_mode & 0o777) for path in made} == {
        path: "0o700" if path.is_dir() else "0o600" for path in made
    }


async def test_a_copy_is_never_overwritten(bus: Bus, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    with pytest.raises(Conflict, match="is there already"):
        await back_up(settings, tmp_path / "copy", nothing)


@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_an_authority_that_can_not_be_read_is_named(
    settings: Settings, tmp_path: Path, content: bytes | None
) -> None:
    authority = tmp_path / "ca.crt"
    if content is not None:
        authority.write_bytes(content)
    with pytest.raises(BusUnavailable) as failed:
        await back_up(settings.model_copy(update={"nats_ca_file": authority}), tmp_path / "copy", nothing)
    assert f"{authority}, which KGENTS_NATS_CA_FILE names" in failed.value.why


@pytest.mark.parametrize("damage", ["byte", "file", "all"])
async def test_a_damaged_copy_is_refused_before_anything_is_changed(
    bus: Bus, settings: Settings, tmp_path: Path, damage: str
) -> None:
    await fill(bus)
    await back_up(settings, tmp_path / "copy", nothing)
    data = tmp_path / "copy" / USAGE_STREAM / "stream.tar.s2"
    if damage == "byte":
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    elif damage == "file":
        data.unlink()
    else:
        (tmp_path / "copy" / "sums.json").unlink()

    with pytest.raises(Unprocessable):
        await restore(settings, tmp_path / "copy", nothing)

    assert (await bus.pending(USAGE_STREAM)).messages == MESSAGES


async def test_a_copy_that_broke_off_leaves_nothing_that_looks_like_one(
    bus: Bus, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(bus)

    def full(_path: Path, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup, "_write", full)
    with pytest.raises(Exception, match="No space"):
        await back_up(settings, tmp_path / "copy", nothing)

    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240


async def test_what_was_acknowledged_before_the_copy_stays_so(
    bus: Bus, settings: Settings, tmp_path: Path, make_bus: MakeBus
) -> None:
    await fill(bus)
    first = await payloads(bus, 200)
    await eventually(lambda: _messages(bus, MESSAGES - 200), what="what is acknowledged is gone")
    await back_up(settings, tmp_path / "copy", nothing)
    await lose(bus)
    await restore(settings, tmp_path / "copy", nothing)

    rest = await payloads(bus, MESSAGES - 200)
    assert len({*first, *rest}) == MESSAGES


async def test_who_misses_a_stream_may_make_it_again_meanwhile(tmp_path: Path) -> None:
    cluster = NatsCluster(tmp_path)
    cluster.start()
    try:
        await eventually(cluster.healthy, seconds=30, what="the cluster is ready")
        settings = cluster.settings()
        async with connected(settings) as client:
            for definition in definitions(3):
                await api(client, f"STREAM.CREATE.{definition['name']}", definition)
            await eventually(cluster.healthy, seconds=30, what="each stream has its leader")
            for number in range(MESSAGES):
                await client.request(USAGE_SUBJECT, b"%d" % number, timeout=10)
            await back_up(settings, tmp_path / "copy", nothing)
            await api(client, f"STREAM.PURGE.{USAGE_STREAM}")
            async with _making_again(settings) as deletions:
                usage, _ = await restore(settings, tmp_path / "copy", nothing)
            assert len(deletions) > 1, "the restore was not disturbed"
            assert usage.messages == MESSAGES
            assert (await info(client, USAGE_STREAM))["state"]["messages"] == MESSAGES
            await eventually(cluster.healthy, seconds=30, what="every server has what was restored")
    finally:
        cluster.stop()


@asynccontextmanager
async def _making_again(settings: Settings) -> AsyncIterator[list[Msg]]:
    """Somebody makes the stream of usage again as soon as it is deleted, twice."""
    deletions: list[Msg] = []
    async with connected(settings) as client:

        async def make(deletion: Msg) -> None:
            deletions.append(deletion)
            if len(deletions) <= 2:
                await api(client, f"STREAM.CREATE.{USAGE_STREAM}", definitions(3)[0], none=NAME_IN_USE)

        await client.subscribe(f"$JS.EVENT.ADVISORY.STREAM.DELETED.{USAGE_STREAM}", cb=make)
        await client.flush()
        yield deletions


async def _messages(bus: Bus, count: int) -> bool:
    return (await bus.pending(USAGE_STREAM)).messages == count
