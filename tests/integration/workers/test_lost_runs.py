"""A queued run whose message the bus has lost is sent again, once; nothing else is."""

from __future__ import annotations

import asyncio

import orjson
import pytest
import sqlalchemy as sa

from kgents.agents import repository, runs
from kgents.agents.ledger_ops import queue_row
from kgents.bus.streams import RUNS_STREAM
from kgents.errors import Unavailable
from kgents.store import outbox
from kgents.store.engine import Scope
from kgents.store.tables import runs as runs_table
from kgents.workers.lost_runs import PATIENCE, LostRuns
from kgents.workers.relay import Relay
from tests.integration.workers.conftest import TENANT
from tests.integration.workers.running import waiting_in
from tests.support.runs import a_run

TRACED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Queue:
    """The queue of runs, as tests see it and break it."""

    def __init__(self, ledger, bus, metrics, clock):
        self._ledger = ledger
        self._relay = Relay(ledger, bus, metrics)
        self._clock = clock
        self.bus = bus

    async def put(self, *run_ids, context=None):
        """Record queued runs of now, each with its message in the outbox, in a recorded trace if one is given."""
        now = self._clock.now()
        made = [
            a_run(
                TENANT,
                run_id=run_id,
                owner=None,
                mode="background",
                status="queued",
                attempt=0,
                created_at=now,
                traceparent=context,
            )
            for run_id in run_ids
        ]

        def unit(connection):
            repository.insert_runs(connection, made)
            outbox.add_many(connection, [queue_row(TENANT, run_id, 0, now, context=context) for run_id in run_ids])

        await self._ledger.write(Scope.system(), unit)

    async def relay(self):
        """Have the bus take what waits in the outbox."""
        while await waiting_in(self._ledger):
            await self._relay.step("run")

    async def purge(self):
        """Lose every message."""
        await self.bus._jetstream.api(f"STREAM.PURGE.{RUNS_STREAM}")

    async def lose(self, sequence):
        """Lose one message."""
        await self.bus._jetstream.api(f"STREAM.MSG.DELETE.{RUNS_STREAM}", {"seq": sequence})

    async def start_anew(self):
        """Lose the stream."""
        await self.bus._jetstream.api(f"STREAM.DELETE.{RUNS_STREAM}")
        await self.bus.ensure_streams()

    async def work(self, number):
        """Claim and acknowledge that many."""
        done = []
        async with self.bus.consume(RUNS_STREAM, "workers", batch=1, ack_wait=10) as deliveries:
            while len(done) < number:
                delivery = await anext(deliveries)
                run_id = orjson.loads(delivery.data)["run_id"]
                await self._ledger.write(
                    Scope.system(),
                    lambda connection, run_id=run_id: runs.claim(
                        connection, TENANT, run_id, "proc_1", self._clock.now(), source="t"
                    ),
                )
                await delivery.ack()
                done.append(run_id)
        return done

    async def length(self):
        return (await self.bus.pending(RUNS_STREAM)).messages


@pytest.fixture
def queue(ledger, bus, metrics, clock, monkeypatch):
    monkeypatch.setattr(repository, "definition_at", lambda *_: None)  # no agent is needed to claim a run
    return Queue(ledger, bus, metrics, clock)


@pytest.fixture
def lost(ledger, bus, clock):
    return LostRuns(ledger, bus, clock)


async def test_a_run_whose_message_is_gone_is_sent_again_and_arrives(ledger, queue, lost, clock):
    await queue.put("run_1")
    await queue.relay()
    await queue.purge()
    clock.advance(PATIENCE + 1)

    found = [await lost.sweep() for _ in range(2)]
    await queue.relay()

    assert found == [0, 1]
    assert await queue.work(1) == ["run_1"]


async def test_a_long_backlog_is_not_multiplied(ledger, queue, lost, clock):
    await queue.put(*(f"run_{number:03}" for number in range(100)))
    await queue.relay()

    for _ in range(20):
        clock.advance(3600)
        assert await lost.sweep() == 0

    assert await waiting_in(ledger) == 0
    assert await queue.length() == 100


async def test_what_is_lost_of_a_backlog_is_sent_again_once_the_rest_is_done(ledger, queue, lost, clock):
    await queue.put(*(f"run_{number}" for number in range(9)))
    await queue.relay()
    await queue.lose(4)
    clock.advance(PATIENCE + 1)

    during = []
    for number in range(8):
        during.append(await lost.sweep())
        await queue.put(f"run_new_{number}")  # there is always something in the queue
        await queue.relay()
        await queue.work(1)
    after = await lost.sweep()
    await queue.relay()

    assert (sum(during), after) == (0, 1)
    assert (await queue.work(9))[-1] == "run_3"


async def test_a_stream_that_was_made_anew_loses_no_run(ledger, queue, lost, clock):
    await queue.put("run_1", "run_2")
    await queue.relay()
    clock.advance(PATIENCE + 1)
    before = await lost.sweep()

    await queue.start_anew()
    found = [await lost.sweep() for _ in range(2)]

    assert (before, found) == (0, [0, 2])


@pytest.mark.parametrize("context", [None, TRACED, f"{TRACED} vendor=1"])
async def test_a_run_whose_message_waits_in_the_outbox_is_not_lost(ledger, queue, lost, clock, context):
    await queue.put("run_1", context=context)
    clock.advance(3600)

    assert [await lost.sweep() for _ in range(3)] == [0, 0, 0]
    assert await waiting_in(ledger) == 1


async def test_a_run_that_was_claimed_meanwhile_is_not_lost(ledger, queue, lost, clock):
    await queue.put("run_1")
    await queue.relay()
    clock.advance(PATIENCE + 1)
    await lost.sweep()

    await queue.work(1)

    assert [await lost.sweep() for _ in range(2)] == [0, 0]
    [row] = await ledger.read(Scope.system(), lambda c: c.execute(sa.select(runs_table)).mappings().all())
    assert (row["status"], row["attempt"]) == ("running", 1)


async def test_sweepers_at_the_same_time_leave_one_message_for_each(ledger, bus, queue, clock):
    await queue.put(*(f"run_{number}" for number in range(20)))
    await queue.relay()
    await queue.purge()
    clock.advance(PATIENCE + 1)
    sweepers = [LostRuns(ledger, bus, clock) for _ in range(4)]
    await asyncio.gather(*(sweeper.sweep() for sweeper in sweepers))

    for sweeper in sweepers:  # the relay may come between
        await sweeper.sweep()
        await queue.relay()
    await asyncio.gather(*(sweeper.sweep() for sweeper in sweepers))
    await queue.relay()

    assert await queue.length() == 20


async def test_while_the_bus_is_away_nothing_is_sent_again(ledger, nats, queue, lost, clock):
    await queue.put("run_1")
    await queue.relay()
    clock.advance(PATIENCE + 1)
    nats.stop()

    with pytest.raises(Unavailable):
        await lost.sweep()

    assert await waiting_in(ledger) == 0
