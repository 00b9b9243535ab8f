"""Publishing: stored once, or an error that says what is known."""

from __future__ import annotations

import pytest

from kgents.bus import nats as nats_bus
from kgents.bus.nats import Ack, Bus, BusUnavailable, WrongLastSequence
from kgents.errors import TooLarge
from tests.support.nats import NatsServer
from tests.support.waiting import eventually


async def test_publish_answers_the_sequence_in_the_stream(bus: Bus) -> None:
    acks = [await bus.publish("kgents.usage", b"x", message_id=name) for name in ("one", "two")]
    assert acks == [Ack(1, duplicate=False), Ack(2, duplicate=False)]


async def test_the_same_message_id_is_stored_once(bus: Bus) -> None:
    first = await bus.publish("kgents.usage", b"x", message_id="one")
    again = await bus.publish("kgents.usage", b"x", message_id="one")
    assert again == Ack(first.seq, duplicate=True)
    assert (await bus.pending("KGENTS_USAGE")).messages == 1


async def test_publish_many_answers_in_order_and_stores_each_id_once(bus: Bus) -> None:
    messages = [(f"id-{number % 1500}", b"%d" % number) for number in range(2000)]
    acks = await bus.publish_many("kgents.usage", messages)
    assert [ack.seq for ack in acks if isinstance(ack, Ack) and not ack.duplicate] == list(range(1, 1501))
    assert [isinstance(ack, Ack) and ack.duplicate for ack in acks] == [False] * 1500 + [True] * 500
    assert (await bus.pending("KGENTS_USAGE")).messages == 1500


async def test_publish_many_tells_each_messages_own_fate(bus: Bus) -> None:
    results = await bus.publish_many("kgents.usage", [("one", b"1"), ("two", bytes(9_000_000)), ("three", b"3")])
    assert [type(result) for result in results] == [Ack, TooLarge, Ack]


class TestExpectation:
    async def test_the_first_message_expects_none_before_it(self, bus: Bus) -> None:
        assert (await bus.publish("kgents.events.r", b"1", expect_last_on_subject=0)).seq == 1

    async def test_counts_on_the_subject_not_in_the_stream(self, bus: Bus) -> None:
        first = await bus.publish("kgents.events.r", b"1", expect_last_on_subject=0)
        await bus.publish("kgents.events.other", b"1", expect_last_on_subject=0)
        assert (await bus.publish("kgents.events.r", b"2", expect_last_on_subject=first.seq)).seq == 3

    async def test_a_second_writer_is_fenced_off(self, bus: Bus) -> None:
        await bus.publish("kgents.events.r", b"1", expect_last_on_subject=0)
        with pytest.raises(WrongLastSequence) as refused:
            await bus.publish("kgents.events.r", b"another 1", expect_last_on_subject=0)
        assert (refused.value.expected, refused.value.actual) == (0, 1)
        assert await bus.last_event("r") == (1, b"1")

    async def test_a_repeat_of_what_was_stored_is_refused_too(self, bus: Bus) -> None:
        await bus.publish("kgents.events.r", b"1", message_id="r:1", expect_last_on_subject=0)
        with pytest.raises(WrongLastSequence):
            await bus.publish("kgents.events.r", b"1", message_id="r:1", expect_last_on_subject=0)


class TestLastEvent:
    async def test_of_a_run_without_events(self, bus: Bus) -> None:
        assert await bus.last_event("r") is None

    async def test_is_the_last_on_the_runs_subject(self, bus: Bus) -> None:
        await bus.publish("kgents.events.r", b"1")
        await bus.publish("kgents.events.r", b"\x00\xff")
        await bus.publish("kgents.events.s", b"3")
        assert await bus.last_event("r") == (2, b"\x00\xff")


class TestUnavailable:
    async def test_a_subject_without_a_stream(self, bus: Bus) -> None:
        with pytest.raises(BusUnavailable, match="no stream"):
            await bus.publish("nobody.listens", b"x")

    async def test_a_server_that_is_away_fails_every_operation_at_once(self, bus: Bus, nats: NatsServer) -> None:
        nats.stop()
        await eventually(lambda: not bus.state.connected)
        for operation in (
            bus.publish("kgents.usage", b"x"),
            bus.last_event("r"),
            bus.broadcast("kgents.control.x", b"x"),
            bus.ping(),
            bus.pending("KGENTS_USAGE"),
        ):
            with pytest.raises(BusUnavailable):
                await operation
        assert all(
            isinstance(result, BusUnavailable) for result in await bus.publish_many("kgents.usage", [("a", b"")])
        )

    async def test_what_users_read_says_nothing_about_the_server(self, bus: Bus, nats: NatsServer) -> None:
        nats.stop()
        await eventually(lambda: not bus.state.connected)
        with pytest.raises(BusUnavailable) as failure:
            await bus.ping()
        assert "127.0.0.1" not in failure.value.detail
        assert "127.0.0.1" in failure.value.why


async def test_pending_tells_messages_bytes_and_the_oldest_ones_age(bus: Bus) -> None:
    assert (await bus.pending("KGENTS_RUNS")).oldest_age == 0.0
    await bus.publish("kgents.runs", b"run")
    backlog = await eventually(lambda: _older_than(bus, 0.2))
    assert (backlog.messages, backlog.size_bytes > 0, backlog.oldest_age < 10) == (1, True, True)


async def _older_than(bus: Bus, seconds: float) -> object:
    backlog = await bus.pending("KGENTS_RUNS")
    return backlog if backlog.oldest_age > seconds else None


async def test_ping_is_a_round_trip_in_milliseconds(bus: Bus) -> None:
    assert 0 < await bus.ping() < 1000


async def test_a_server_that_stores_nothing_is_told_until_it_stores_again(bus: Bus) -> None:
    config = (await bus._jetstream.api("STREAM.INFO.KGENTS_USAGE"))["config"]
    await bus._jetstream.api("STREAM.UPDATE.KGENTS_USAGE", {**config, "max_bytes": 10})
    with pytest.raises(BusUnavailable, match="maximum bytes"):
        await bus.publish("kgents.usage", b"too much for it")
    assert await bus.ping()
    assert list(await bus.failing()) == ["kgents.usage"]
    await bus._jetstream.api("STREAM.UPDATE.KGENTS_USAGE", config)
    await bus.publish_many("kgents.usage", [("one", b"x")])
    assert not await bus.failing()


async def refuse(bus: Bus, stream: str, subject: str) -> None:
    """Have a stream take small messages only, and publish a large one."""
    config = (await bus._jetstream.api(f"STREAM.INFO.{stream}"))["config"]
    await bus._jetstream.api(f"STREAM.UPDATE.{stream}", {**config, "max_msg_size": 500})
    with pytest.raises(BusUnavailable, match="size"):
        await bus.publish(subject, bytes(1000))


async def test_a_stream_that_names_another_last_message_works(bus: Bus) -> None:
    await refuse(bus, "KGENTS_EVENTS", "kgents.events.r")
    with pytest.raises(WrongLastSequence):
        await bus.publish("kgents.events.r", b"x", expect_last_on_subject=7)
    assert not await bus.failing()


async def test_a_failure_that_nobody_tried_again_is_over_once_the_stream_answers(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await refuse(bus, "KGENTS_EVENTS", "kgents.events.r")
    assert list(await bus.failing()) == ["kgents.events"]
    monkeypatch.setattr(nats_bus, "STALE", 0.0)
    assert not await bus.failing()


async def test_a_failure_stays_while_the_stream_does_not_answer(
    bus: Bus, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_bus, "STALE", 0.0)
    nats.stop()
    with pytest.raises(BusUnavailable):
        await bus.publish("kgents.usage", b"x")
    assert list(await bus.failing()) == ["kgents.usage"]
