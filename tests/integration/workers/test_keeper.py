"""A process's keeper gives back the runs that are recorded as the process's, and that it does not carry out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa

from kgents.agents import repository, runs
from kgents.agents.executor import Executor
from kgents.agents.keeper import Keeper
from kgents.agents.ledger_ops import Admission
from kgents.agents.model import AgentDefinition
from kgents.agents.models.registry import ModelRegistry
from kgents.agents.prepare import Planner
from kgents.bus.nats import Bus
from kgents.clock import month_of
from kgents.config import Settings
from kgents.errors import Unavailable
from kgents.store.engine import Scope
from kgents.store.failures import Unconfirmed, unavailable
from kgents.store.tables import agents, outbox, usage_events
from tests.integration.workers.conftest import TENANT
from tests.support.runs import a_run


class Process:
    """What a process has that carries out runs. Its database commits an admission and does not say so."""

    def __init__(self, ledger, metrics, clock, bus, registry) -> None:
        self.planner = Planner(registry)
        self.executor = Executor(
            settings=Settings(),
            store=Unsaid(ledger),
            bus=bus,
            clock=clock,
            planner=self.planner,
            metrics=metrics,
            instance="proc_1",
        )
        self.keeper = Keeper(store=ledger, bus=bus, clock=clock, executor=self.executor, name="api", kind="api")


class Unsaid:
    def __init__(self, store) -> None:
        self._store = store

    async def submit(self, op, item):
        await self._store.submit(op, item)
        raise unavailable(Unconfirmed("no answer to COMMIT"))


@pytest.fixture
async def process(ledger, metrics, clock) -> AsyncIterator[Process]:
    row = {"agent_id": "agt_1", "tenant_id": TENANT, "name": "a", "version": 1, "created_at": 0, "updated_at": 0}
    await ledger.write(Scope.system(), lambda connection: connection.execute(sa.insert(agents), row))
    registry = ModelRegistry(Settings())
    yield Process(ledger, metrics, clock, Bus(Settings(), clock), registry)
    await registry.aclose()


async def recorded(ledger, run):
    return await ledger.read(
        Scope.system(), lambda connection: repository.run_by_id(connection, run.tenant_id, run.run_id)
    )


async def test_a_run_whose_admission_was_not_confirmed_goes_to_the_workers(ledger, process):
    run = a_run(TENANT)
    with pytest.raises(Unavailable):
        await process.executor.admit(Admission(run, None))

    await process.keeper.beat()  # it is found
    await process.keeper.beat()  # it is given back

    assert (found := await recorded(ledger, run))
    assert (found.status, found.owner) == ("queued", None)
    queued = await ledger.read(Scope.system(), lambda connection: connection.execute(sa.select(outbox)).all())
    assert [row.message_id for row in queued] == [f"{run.run_id}:1"]
    await process.keeper.beat()
    assert process.executor.stranded() == []


async def test_a_run_whose_end_fails_in_a_way_that_nobody_thought_of_goes_to_the_workers(ledger, process, monkeypatch):
    run = a_run(TENANT, input={"messages": [{"role": "user", "content": "hello"}]})
    await ledger.write(Scope.system(), lambda connection: repository.insert_runs(connection, [run]))
    work = process.planner.work(run, AgentDefinition("kgents:echo"))

    def broken(*_: object) -> None:
        raise TypeError("not thought of")

    monkeypatch.setattr(Unsaid, "submit", broken)
    with pytest.raises(Unavailable, match="was admitted"):
        await process.executor.carry_out(work)
    await process.keeper.beat()

    assert (found := await recorded(ledger, run))
    assert (found.status, found.owner) == ("queued", None)


@pytest.mark.parametrize("mode", ["wait", "stream"])
async def test_a_run_whose_end_could_not_be_recorded_is_metered_though_it_is_cancelled_then(
    ledger, process, clock, monkeypatch, mode
):
    asked = {"messages": [{"role": "user", "content": "hello you"}]}
    run = a_run(TENANT, mode=mode, input=asked, period=month_of(clock.now()))
    await ledger.write(Scope.system(), lambda connection: repository.insert_runs(connection, [run]))
    work = process.planner.work(run, AgentDefinition("kgents:echo"))

    async def away(*_: object) -> None:
        raise unavailable(ConnectionError("the database is away"))

    monkeypatch.setattr(Unsaid, "submit", lambda *_: asyncio.ensure_future(away()))
    with pytest.raises(Unavailable, match="was admitted"):
        await process.executor.carry_out(work)
    await process.keeper.beat()
    ended = await ledger.write(
        Scope.tenant(TENANT),
        lambda connection: runs.request_cancel(connection, TENANT, run.run_id, 1, source="kgents"),
    )

    assert (ended.status, ended.input_tokens, ended.output_tokens) == ("cancelled", 3, 3)
    rows = await ledger.read(Scope.system(), lambda connection: connection.execute(sa.select(usage_events)).all())
    assert {row.event_id: row.estimated for row in rows} == {
        f"{run.run_id}:0:{meter}": False for meter in ("runs", "input_tokens", "output_tokens")
    }


async def test_a_run_whose_admission_is_under_way_when_its_process_is_to_end_is_ended(ledger, process, monkeypatch):
    run = a_run(TENANT, input={"messages": [{"role": "user", "content": "hello"}]})
    await ledger.write(Scope.system(), lambda connection: repository.insert_runs(connection, [run]))
    work = process.planner.work(run, AgentDefinition("kgents:echo"))
    monkeypatch.setattr(process.executor, "_store", ledger)

    with process.executor.awaiting(run.run_id):
        drained = asyncio.create_task(process.executor.drain(10))
        await asyncio.sleep(0)
        process.executor.start(work)
    await drained

    assert (await recorded(ledger, run)).status == "completed"


async def test_a_run_whose_admission_is_still_awaited_stays_with_its_process(ledger, process):
    run = a_run(TENANT)
    await ledger.write(Scope.system(), lambda connection: repository.insert_runs(connection, [run]))

    with process.executor.awaiting(run.run_id):
        await process.keeper.beat()
        await process.keeper.beat()

    assert (await recorded(ledger, run)).status == "running"


async def test_a_run_of_another_process_is_not_given_back(ledger, process):
    run = a_run(TENANT, owner="proc_2")
    await ledger.write(Scope.system(), lambda connection: repository.insert_runs(connection, [run]))

    await process.keeper.beat()
    await process.keeper.beat()

    assert (await recorded(ledger, run)).status == "running"
