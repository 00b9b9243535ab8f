"""The sweeper settles what crashes and time leave behind, once."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from kgents.agents import repository, runs
from kgents.clock import SECOND
from kgents.errors import Unavailable
from kgents.store import changes, outbox
from kgents.store.engine import Scope
from kgents.store.tables import cache_changes, idempotency_keys, processes
from kgents.store.tables import runs as runs_table
from kgents.workers import sweeper as sweeping
from kgents.workers.sweeper import Sweeper
from tests.integration.workers.conftest import TENANT
from tests.integration.workers.running import count, running
from tests.support.runs import a_run
from tests.support.waiting import eventually

HOUR = 3600


def run(run_id, owner, *, status="running", attempt=1):
    return a_run(TENANT, run_id=run_id, owner=owner, mode="background", status=status, attempt=attempt)


async def begin(ledger, *made):
    await ledger.write(Scope.system(), lambda connection: repository.insert_runs(connection, made))


async def beat(ledger, instance, now):
    def unit(connection):
        runs.heartbeat(connection, f"name of {instance}", instance, "worker", now)

    await ledger.write(Scope.system(), unit)


async def keys(ledger, number, expires_at):
    rows = [
        {
            "tenant_id": TENANT,
            "key": f"{expires_at}:{n}",
            "fingerprint": b"",
            "created_at": 1,
            "expires_at": expires_at,
        }
        for n in range(number)
    ]
    await ledger.write(Scope.system(), lambda connection: connection.execute(sa.insert(idempotency_keys), rows))


async def rows_of(ledger, table):
    return await ledger.read(Scope.system(), lambda c: c.execute(sa.select(table)).mappings().all())


@pytest.fixture
def sweeper(ledger, bus, metrics, clock):
    return Sweeper(ledger, bus, metrics, clock)


async def test_a_run_whose_process_is_gone_goes_back_to_the_queue(ledger, sweeper, metrics):
    await begin(ledger, run("run_1", "proc_gone", attempt=3))

    assert await sweeper.take_up() == 1
    assert count(metrics, "swept_total", kind="orphan_runs") == 1
    assert [(row["status"], row["owner"]) for row in await rows_of(ledger, runs_table)] == [("queued", None)]
    [message] = await rows_of(ledger, outbox.outbox)
    assert (message["topic"], message["message_id"]) == ("run", "run_1:3")


async def test_a_running_run_that_no_process_has_goes_back_to_the_queue(ledger, sweeper, clock):
    await beat(ledger, "proc_1", clock.now())
    await begin(ledger, run("run_1", None))

    assert await sweeper.take_up() == 1


async def looks(sweeper, ledger, clock, seconds, *, every=1, own=True):
    """Sweep again and again for so many seconds; answers how many runs were taken up. The process that sweeps beats by
    its own clock, as far as the database takes it.
    """
    taken = 0
    for _ in range(round(seconds / every)):
        clock.advance(every)
        if own:
            await beat(ledger, "proc_own", clock.now())
        taken += await sweeper.take_up()
    return taken


async def test_the_run_of_a_process_that_falls_silent_is_taken_after_its_lease(ledger, sweeper, clock):
    await beat(ledger, "proc_1", clock.now())
    await begin(ledger, run("run_1", "proc_1"))
    await sweeper.take_up()

    before = await looks(sweeper, ledger, clock, runs.LEASE - 1)
    after = await looks(sweeper, ledger, clock, 1)

    assert (before, after) == (0, 1)


@pytest.mark.parametrize("hours", [-2, 2])
async def test_whether_a_process_is_dead_is_not_told_by_its_clock(ledger, sweeper, clock, hours):
    await begin(ledger, run("run_1", "proc_1"))

    async def beats(number):
        await beat(ledger, "proc_1", clock.now() + hours * HOUR * SECOND + number)

    taken = 0
    for number in range(20):
        await beats(number)
        taken += await looks(sweeper, ledger, clock, 2)
    assert taken == 0
    assert (await sweeper.tidy())["processes"] == 0
    assert await looks(sweeper, ledger, clock, runs.LEASE + 1) == 1


async def test_after_an_outage_every_process_has_a_lease_to_be_heard_of_again(ledger, sweeper, clock, monkeypatch):
    await beat(ledger, "proc_1", clock.now())
    await begin(ledger, run("run_1", "proc_1"))
    await looks(sweeper, ledger, clock, runs.LEASE - 1)

    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "requeue_orphans", _away)
        with pytest.raises(Unavailable):
            await sweeper.take_up()

    assert await looks(sweeper, ledger, clock, runs.LEASE) == 0
    assert await looks(sweeper, ledger, clock, 1) == 1


def _away(*_):
    raise Unavailable("The database does not answer.")


async def test_a_sweeper_that_stood_still_takes_nobody_for_dead(ledger, sweeper, clock):
    await beat(ledger, "proc_1", clock.now())
    await begin(ledger, run("run_1", "proc_1"))
    await looks(sweeper, ledger, clock, runs.LEASE - 1)

    assert await looks(sweeper, ledger, clock, 60, every=60) == 0


async def test_while_nobody_can_record_a_heartbeat_nobody_is_taken_for_dead(ledger, sweeper, clock):
    await beat(ledger, "proc_1", clock.now())
    await begin(ledger, run("run_1", "proc_1"))

    assert await looks(sweeper, ledger, clock, 60, own=False) == 0
    assert await looks(sweeper, ledger, clock, runs.LEASE - 1) == 0
    assert await looks(sweeper, ledger, clock, 2) == 1


async def test_a_heartbeat_that_comes_between_the_look_and_the_sweep_counts(ledger, clock):
    seen = runs.Heartbeat("proc_1", clock.now())
    await begin(ledger, run("run_1", "proc_1"))
    await beat(ledger, "proc_1", clock.now() + 1)

    assert not await ledger.write(Scope.system(), lambda c: runs.orphans(c, [seen], 10))


@pytest.mark.parametrize("status", ["queued", "completed", "failed", "cancelled"])
async def test_a_run_that_nobody_carries_out_is_left_alone(ledger, sweeper, status):
    await begin(ledger, run("run_1", None, status=status))

    assert await sweeper.take_up() == 0


async def test_sweepers_at_the_same_time_settle_each_thing_once(ledger, sweeper, metrics):
    await begin(ledger, *(run(f"run_{number}", "proc_gone") for number in range(50)))
    await keys(ledger, 50, 1)

    await asyncio.gather(*(sweep() for sweep in (sweeper.take_up, sweeper.tidy) for _ in range(4)))

    assert count(metrics, "swept_total", kind="orphan_runs") == 50
    assert count(metrics, "swept_total", kind="idempotency_keys") == 50
    assert len(await rows_of(ledger, outbox.outbox)) == 50


async def test_expired_keys_go_however_many_and_the_others_stay(ledger, sweeper, clock, monkeypatch):
    monkeypatch.setattr(sweeping, "MOST_KEYS", 10)
    await keys(ledger, 35, clock.now())
    await keys(ledger, 5, clock.now() + 1)

    found = await sweeper.tidy()

    assert found["idempotency_keys"] == 35
    assert {row["expires_at"] for row in await rows_of(ledger, idempotency_keys)} == {clock.now() + 1}


async def announce(ledger, ref, at):
    await ledger.write(Scope.system(), lambda connection: changes.announce(connection, TENANT, "agent", ref, at))


async def test_what_every_process_has_heard_is_forgotten(ledger, sweeper, clock):
    await announce(ledger, "old", clock.now())
    before = await sweeper.tidy()
    clock.advance(HOUR)
    await announce(ledger, "new", clock.now())
    after = await sweeper.tidy()

    assert (before["cache_changes"], after["cache_changes"]) == (0, 1)
    assert [row["ref"] for row in await rows_of(ledger, cache_changes)] == ["new"]


async def test_an_announcement_from_a_host_whose_clock_is_behind_is_kept_for_an_hour(ledger, sweeper, clock):
    await announce(ledger, "revoked", clock.now() - 2 * HOUR * SECOND)
    found = [(await sweeper.tidy())["cache_changes"]]
    clock.advance(HOUR - 1)
    found.append((await sweeper.tidy())["cache_changes"])

    assert found == [0, 0]
    assert [row["ref"] for row in await rows_of(ledger, cache_changes)] == ["revoked"]


async def test_processes_that_were_silent_for_long_are_forgotten(ledger, sweeper, clock):
    await beat(ledger, "proc_old", clock.now() - 2 * HOUR * SECOND)
    await beat(ledger, "proc_new", clock.now())
    await looks(sweeper, ledger, clock, runs.LEASE + 1)

    assert (await sweeper.tidy())["processes"] == 1
    assert [row["instance"] for row in await rows_of(ledger, processes)] == ["proc_new", "proc_own"]


async def test_housekeeping_that_fails_keeps_no_run_from_being_taken_up(ledger, sweeper, monkeypatch):
    monkeypatch.setattr(sweeping, "expire_keys", _away)

    async with running(sweeper):
        await begin(ledger, run("run_1", "proc_gone"))
        await eventually(lambda: _is_queued(ledger), what="the run is in the queue")


async def _is_queued(ledger):
    return [row["status"] for row in await rows_of(ledger, runs_table)] == ["queued"]


async def test_a_sweep_over_nothing_changes_nothing(sweeper, metrics):
    assert await sweeper.take_up() == 0
    assert set((await sweeper.tidy()).values()) == {0}
