"""The relay: from the outbox to the bus, on both databases and with a real nats-server."""

from __future__ import annotations

import asyncio
import signal
from contextlib import aclosing

import orjson
import pytest
import sqlalchemy as sa

from kgents.agents import signals
from kgents.bus.streams import RUNS_STREAM, USAGE_STREAM
from kgents.store import outbox
from kgents.store.engine import Scope, open_store
from kgents.store.outbox import NewRow
from kgents.workers import relay as relaying
from kgents.workers.relay import Relay
from tests.integration.workers.conftest import TENANT
from tests.integration.workers.running import count, running, waiting_in
from tests.support.ledger import post, posting
from tests.support.waiting import eventually

NOW = 1_780_000_000_000_000


async def plant(ledger, steps):
    """Steps of two or three events each; answers the events' ids in the order of writing."""
    postings = [posting(TENANT, NOW + number) for number in range(steps)]
    await ledger.write(Scope.system(), lambda connection: post(connection, *postings))
    return [event.event_id for step in postings for event in step.events]


async def queue(ledger, *names):
    rows = [NewRow(TENANT, "run", f"{name}:1", f'{{"run_id":"{name}"}}', NOW) for name in names]
    await ledger.write(Scope.system(), lambda connection: outbox.add_many(connection, rows))


async def taken(bus, stream, messages):
    """What is in a stream, in order."""
    found = []
    async with aclosing(bus.consume(stream, "looking", batch=8, ack_wait=30)) as deliveries:
        while len(found) < messages:
            found.append(await asyncio.wait_for(anext(deliveries), 10))
            await found[-1].ack()
    return found


async def events_on(bus):
    messages = (await bus.pending(USAGE_STREAM)).messages
    return [event["id"] for message in await taken(bus, USAGE_STREAM, messages) for event in orjson.loads(message.data)]


async def test_usage_goes_to_the_bus_in_order_in_few_messages_and_leaves_the_outbox(ledger, bus, metrics):
    ids = await plant(ledger, 150)

    assert await Relay(ledger, bus, metrics).step("usage") == 150

    assert (await bus.pending(USAGE_STREAM)).messages == 3  # of at most 200 events
    assert await events_on(bus) == ids
    assert await waiting_in(ledger) == 0
    assert count(metrics, "outbox_messages_relayed_total", topic="usage") == 150


async def test_each_queued_run_is_a_message_of_its_own_with_its_id(ledger, bus, metrics):
    await queue(ledger, "run_1", "run_2")

    await Relay(ledger, bus, metrics).step("run")

    messages = await taken(bus, RUNS_STREAM, 2)
    assert [(message.message_id, message.data) for message in messages] == [
        ("run_1:1", b'{"run_id":"run_1"}'),
        ("run_2:1", b'{"run_id":"run_2"}'),
    ]


@pytest.mark.parametrize(("topic", "stream"), [("usage", USAGE_STREAM), ("run", RUNS_STREAM)])
async def test_a_step_over_an_empty_outbox_does_nothing(ledger, bus, metrics, topic, stream):
    assert await Relay(ledger, bus, metrics).step(topic) == 0

    assert (await bus.pending(stream)).messages == 0


@pytest.mark.parametrize(
    ("away", "other", "topic"), [(USAGE_STREAM, RUNS_STREAM, "usage"), (RUNS_STREAM, USAGE_STREAM, "run")]
)
async def test_a_stream_that_takes_nothing_does_not_starve_the_other(
    ledger, bus, metrics, monkeypatch, away, other, topic
):
    monkeypatch.setattr(relaying, "TAKE", 2)
    await queue(ledger, "run_1", "run_2", "run_3")
    await plant(ledger, 3)
    await queue(ledger, "run_4")
    await plant(ledger, 1)
    await bus._jetstream.api(f"STREAM.DELETE.{away}")
    monkeypatch.setattr(bus._connection, "doubt", lambda: None)  # which would make the stream anew

    async with running(Relay(ledger, bus, metrics)):
        await eventually(lambda: _waits_only(ledger, topic), what="the other topic's messages are on the bus")

    assert (await bus.pending(other)).messages > 0


async def test_an_answer_that_cannot_be_read_is_a_failure_of_its_message_alone(ledger, bus, metrics, monkeypatch):
    await queue(ledger, "run_1", "run_2")
    send = bus._jetstream.send

    async def garbled(subject, payload, *, headers):
        answer = await send(subject, payload, headers=headers)
        if headers["Nats-Msg-Id"] == "run_1:1":
            (await answer).data = b"<html>"
        return answer

    monkeypatch.setattr(bus._jetstream, "send", garbled)

    async with running(Relay(ledger, bus, metrics)):
        await eventually(lambda: _is(ledger, 1), what="the other message has left the outbox")
        monkeypatch.undo()
        await eventually(lambda: _is_empty(ledger), what="the message is sent again")

    assert (await bus.pending(RUNS_STREAM)).messages == 2


async def _is(ledger, number):
    return await waiting_in(ledger) == number


async def _waits_only(ledger, topic):
    rows = await ledger.read(Scope.system(), lambda c: c.execute(sa.select(outbox.outbox.c.topic)).scalars().all())
    return rows == [topic] * 4


async def test_a_nudge_wakes_it(ledger, bus, metrics, monkeypatch):
    monkeypatch.setattr(relaying, "IDLE", 3600.0)

    async with running(Relay(ledger, bus, metrics)):
        await plant(ledger, 1)

        async def nudged():
            await signals.nudge(bus)
            return await waiting_in(ledger) == 0

        await eventually(nudged, what="the outbox is empty")


async def test_without_a_nudge_it_looks_by_itself(ledger, bus, metrics):
    async with running(Relay(ledger, bus, metrics)):
        await plant(ledger, 1)
        await eventually(lambda: _is_empty(ledger), what="the outbox is empty")


async def _is_empty(ledger):
    return await waiting_in(ledger) == 0


async def test_while_the_bus_is_away_the_outbox_keeps_and_then_it_catches_up(ledger, bus, nats, metrics):
    async with running(Relay(ledger, bus, metrics)):
        nats.stop(signal.SIGKILL)
        await eventually(lambda: not bus.state.connected, what="the bus is away")
        ids = await plant(ledger, 10)
        await queue(ledger, "run_1")
        assert await waiting_in(ledger) == 11
        nats.start()
        await eventually(lambda: _is_empty(ledger), what="the outbox is empty")

    assert sorted(set(await events_on(bus))) == sorted(ids)
    assert (await bus.pending(RUNS_STREAM)).messages == 1


async def test_relays_on_postgresql_share_the_work(ledger, database, make_bus, metrics):
    ids = await plant(ledger, 2500)
    stores = [open_store(database.url) for _ in range(3)]
    relays = [Relay(store, await make_bus(), metrics) for store in stores]

    moved = await asyncio.gather(*(relay.step("usage") for relay in relays))

    for store in stores:
        await store.close()
    if ledger.dialect == "postgresql":
        assert sum(moved) == 2500  # none takes more than 1,000, so each had at least 500
        assert await waiting_in(ledger) == 0
        assert sorted(await events_on(await make_bus())) == sorted(ids)
    else:  # there is one worker there; sending twice loses nothing, whoever reads before or after another's delete
        sent = {event_id.rpartition(":")[0] for event_id in await events_on(await make_bus())}
        assert len(sent) >= 1000
        assert len(sent) + await waiting_in(ledger) == 2500


async def test_what_a_relay_holds_that_ends_is_free_for_another(ledger, database, bus, nats, metrics):
    ids = await plant(ledger, 10)
    other = open_store(database.url)
    nats.process.send(signal.SIGSTOP)
    ending = asyncio.create_task(Relay(ledger, bus, metrics).step("usage"))
    await asyncio.sleep(0.2)  # it is publishing now, which is not answered
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
    nats.process.send(signal.SIGCONT)

    async def moved():
        await eventually(lambda: bus.state.connected, what="the bus is connected")
        return await Relay(other, bus, metrics).step("usage")

    assert await moved() == 10
    assert sorted(set(await events_on(bus))) == sorted(ids)
    await other.close()
