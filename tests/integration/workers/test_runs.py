"""A worker takes queued runs and carries them out; what it can't is left for others, or taken off the queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import orjson
import pytest
import sqlalchemy as sa
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart

from kgents.agents import repository, runner, runs
from kgents.agents.conversation import dump_message
from kgents.agents.events import load_events
from kgents.agents.executor import Executor
from kgents.agents.ledger_ops import Admission, StepRecord, queue_row
from kgents.agents.model import Agent, AgentDefinition, Limits
from kgents.agents.models.registry import ModelRegistry
from kgents.agents.prepare import Planner
from kgents.agents.tools.toolbox import Toolbox
from kgents.bus.nats import BusUnavailable
from kgents.bus.streams import RUNS_STREAM, RUNS_SUBJECT
from kgents.clock import SystemClock, month_bounds, month_of
from kgents.config import Settings
from kgents.errors import Unprocessable
from kgents.store.engine import Scope
from kgents.store.tables import balances, outbox, quotas, tenants, usage_events
from kgents.usage import service
from kgents.usage.ledger import Posting, post
from kgents.usage.model import METERS, NOTHING, Amounts
from kgents.workers import runs as working
from kgents.workers.runs import RunWorker
from tests.integration.workers.conftest import TENANT
from tests.integration.workers.running import running
from tests.support.runs import a_run
from tests.support.waiting import eventually


class Claims:
    """The worker's way to the database, which may be held up."""

    def __init__(self, ledger) -> None:
        self._ledger = ledger
        self.asked = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def write(self, scope, fn):
        self.asked.set()
        await self.open.wait()
        return await self._ledger.write(scope, fn)

    async def read(self, scope, fn):
        return await self._ledger.read(scope, fn)


SLOTS = 6


class Process:
    """A worker's process, and the queue that it takes runs from."""

    def __init__(self, ledger, bus, metrics, registry, instance="proc_1") -> None:
        self._ledger = ledger
        self._bus = bus
        clock, planner = SystemClock(), Planner(registry)
        self.executor = Executor(
            settings=Settings(),
            store=ledger,
            bus=bus,
            clock=clock,
            planner=planner,
            metrics=metrics,
            instance=instance,
        )
        self.claims = Claims(ledger)
        self.worker = RunWorker(
            store=self.claims,
            bus=bus,
            clock=clock,
            planner=planner,
            executor=self.executor,
            source="kgents",
            slots=SLOTS,
        )

    async def queue(
        self,
        text: str = "hi",
        *,
        tenant_id: str = TENANT,
        attempt: int = 0,
        said: Sequence[ModelMessage] = (),
        **fields,
    ) -> str:
        """Record a queued run, with what was said in its steps so far, and put its message into the queue; answers its
        id.
        """
        run = a_run(
            tenant_id,
            owner=None,
            mode="background",
            status="queued",
            attempt=attempt,
            input={"messages": [{"role": "user", "content": text}]},
            **fields,
        )
        steps = [(tenant_id, run.run_id, step, dump_message(message), 0) for step, message in enumerate(said)]

        def unit(connection):
            repository.insert_runs(connection, [run])
            repository.insert_steps(connection, steps)

        await self._ledger.write(Scope.system(), unit)
        await self.send(queue_row(tenant_id, run.run_id, attempt, 0).payload.encode(), f"{run.run_id}:{attempt}")
        return run.run_id

    async def send(self, payload: bytes, message_id: str) -> None:
        """Put a message into the queue."""
        await self._bus.publish(RUNS_SUBJECT, payload, message_id=message_id)

    async def run(self, run_id: str, tenant_id: str = TENANT):
        """A run as it is recorded."""
        return await self._ledger.read(
            Scope.system(), lambda connection: repository.run_by_id(connection, tenant_id, run_id)
        )

    async def reached(self, run_id: str, status: str, tenant_id: str = TENANT) -> None:
        """Wait until a run has that status."""

        async def has() -> bool:
            return (await self.run(run_id, tenant_id)).status == status

        await eventually(has, what=f"{run_id} is {status}")

    async def delivered(self, number: int) -> None:
        """Wait until the queue has delivered that often, again and again the same message or not."""

        async def has() -> bool:
            info = await self._bus._jetstream.api(f"CONSUMER.INFO.{RUNS_STREAM}.workers")
            return info["delivered"]["consumer_seq"] >= number

        await eventually(has, what=f"{number} deliveries")

    async def limit(self, meter: str, most: int) -> None:
        """Give the tenant a quota."""
        row = {"tenant_id": TENANT, "meter": meter, "monthly_limit": most}
        await self._ledger.write(Scope.system(), lambda connection: connection.execute(sa.insert(quotas), row))

    async def balances(self) -> dict[str, tuple[Amounts, Amounts]]:
        """What was used and what is reserved, by month."""
        rows = await self._ledger.read(Scope.system(), lambda connection: connection.execute(sa.select(balances)).all())
        return {row.period: (Amounts(*row[2:6]), Amounts(*row[6:10])) for row in rows}

    async def events(self) -> dict[str, int]:
        """The usage events of all runs, as `step:meter`, with their quantities."""
        rows = await self._ledger.read(
            Scope.system(), lambda connection: connection.execute(sa.select(usage_events)).all()
        )
        return {row.event_id.partition(":")[2]: row.quantity for row in rows}

    async def emptied(self) -> None:
        """Wait until the queue is empty."""

        async def is_empty() -> bool:
            return (await self._bus.pending(RUNS_STREAM)).messages == 0

        await eventually(is_empty, what="the queue is empty")


@pytest.fixture
async def other(ledger) -> str:
    """Another tenant, with an agent `agt_2`."""
    row = {"tenant_id": "ten_2", "name": "u", "status": "active", "created_at": 0, "updated_at": 0}
    agent = Agent("agt_2", "ten_2", "a", 1, AgentDefinition(model="kgents:echo"), 0, 0)

    def unit(connection):
        connection.execute(sa.insert(tenants), row)
        repository.insert_agent(connection, agent)

    await ledger.write(Scope.system(), unit)
    return "ten_2"


@pytest.fixture
async def process(ledger, bus, metrics) -> AsyncIterator[Process]:
    tools = ({"type": "builtin", "name": "calculator"},)
    agent = Agent("agt_1", TENANT, "a", 1, AgentDefinition(model="kgents:echo", tools=tools), 0, 0)
    await ledger.write(Scope.system(), lambda connection: repository.insert_agent(connection, agent))
    registry = ModelRegistry(Settings())
    made = Process(ledger, bus, metrics, registry)
    yield made
    await made.executor.drain(0)
    await registry.aclose()


@pytest.fixture
async def another(ledger, metrics, make_bus) -> AsyncIterator[Process]:
    """Another worker's process, on the same queue."""
    registry = ModelRegistry(Settings())
    made = Process(ledger, await make_bus(), metrics, registry, "proc_2")
    yield made
    await made.executor.drain(0)
    await registry.aclose()


async def test_a_queued_run_is_carried_out_and_leaves_the_queue(process):
    async with running(process.worker):
        run_id = await process.queue()
        await process.reached(run_id, "completed")
        await process.emptied()


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"{", b"[]", b"7", b"{}", b'{"tenant_id":"ten_1"}', b'{"tenant_id":1,"run_id":[]}']
)
async def test_a_message_that_cannot_be_read_is_taken_off_the_queue(process, payload):
    async with running(process.worker):
        await process.send(payload, "unreadable")
        await process.emptied()


async def test_a_worker_that_is_stopped_claims_no_more_and_ends_what_it_has(process):
    async with running(process.worker):
        first = await process.queue("/sleep 0.1 /words 8")
        await process.reached(first, "running")

        await process.worker.stop()
        second = await process.queue()
        await process.reached(first, "completed")
        await process.worker.finish(5)

    assert (await process.run(second)).status == "queued"


async def test_a_run_that_is_being_claimed_at_the_stop_is_there_to_be_drained(process):
    process.claims.open.clear()
    async with running(process.worker):
        run_id = await process.queue("/sleep 0.1 /words 20")
        await process.claims.asked.wait()

        stopping = asyncio.create_task(process.worker.stop())
        done, _ = await asyncio.wait([stopping], timeout=0.1)
        process.claims.open.set()
        await stopping

        assert not done
        assert process.executor.carries(run_id)


@pytest.mark.parametrize("status", ["queued", "completed"])
async def test_a_process_that_lost_its_run_does_not_end_it(process, ledger, status):
    run = a_run(TENANT, mode="background", status=status, attempt=2, owner=None)
    await ledger.write(Scope.system(), lambda connection: repository.insert_runs(connection, [run]))

    await process.executor.fail(run._replace(status="running", attempt=1, owner="proc_1"), Unprocessable("no model"))

    assert await process.run(run.run_id) == run


async def test_of_two_messages_of_one_run_at_once_the_second_comes_again_later(process, monkeypatch):
    monkeypatch.setattr(working, "BUSY_DELAY", 0.05)
    process.claims.open.clear()
    async with running(process.worker):
        run_id = await process.queue()
        await process.claims.asked.wait()
        await process.send(queue_row(TENANT, run_id, 0, 0).payload.encode(), "again")
        await process.delivered(3)
        process.claims.open.set()
        await process.reached(run_id, "completed")

    assert (await process.run(run_id)).attempt == 1


class TestShares:
    """A worker's slots are for all tenants."""

    ASLEEP = "/sleep 30 a b"

    async def test_a_tenant_alone_gets_half_of_the_slots(self, process):
        async with running(process.worker):
            queued = [await process.queue(self.ASLEEP) for _ in range(SLOTS)]
            await process.delivered(SLOTS)
            for run_id in queued[: SLOTS // 2]:
                await process.reached(run_id, "running")

            assert process.executor.running == SLOTS // 2

    async def test_runs_do_not_wait_for_those_of_a_tenant_with_many(self, process, other):
        async with running(process.worker):
            for _ in range(2 * SLOTS):
                await process.queue(self.ASLEEP)
            await process.delivered(SLOTS)
            mine = [await process.queue(tenant_id=other, agent_id="agt_2") for _ in range(3 * SLOTS)]
            for run_id in mine:
                await process.reached(run_id, "completed", other)

            assert process.executor.running == SLOTS // 2

    async def test_a_run_that_waited_does_not_wait_for_what_was_carried_out_in_its_place(self, process, other):
        async with running(process.worker):
            first = [await process.queue("/sleep 1 a b") for _ in range(SLOTS // 2)]
            then = [await process.queue() for _ in range(SLOTS // 2)]
            await process.delivered(SLOTS)
            await process.queue(self.ASLEEP, tenant_id=other, agent_id="agt_2")
            for run_id in (*first, *then):
                await process.reached(run_id, "completed")

    async def test_what_a_worker_can_not_begin_goes_to_another(self, process, another, monkeypatch):
        monkeypatch.setattr(working, "PATIENCE", 0.1)
        monkeypatch.setattr(working, "BUSY_DELAY", 0.1)
        async with running(process.worker):
            queued = [await process.queue(self.ASLEEP) for _ in range(SLOTS)]
            await process.delivered(SLOTS)
            async with running(another.worker):
                for run_id in queued:
                    await process.reached(run_id, "running")

                assert process.executor.running == another.executor.running == SLOTS // 2

    async def test_what_waited_for_its_share_is_carried_out(self, process, other):
        async with running(process.worker):
            queued = [await process.queue() for _ in range(3 * SLOTS)]
            queued_there = [await process.queue(tenant_id=other, agent_id="agt_2") for _ in range(SLOTS)]
            for run_id in queued:
                await process.reached(run_id, "completed")
            for run_id in queued_there:
                await process.reached(run_id, "completed", other)
            await process.emptied()

            assert {(await process.run(run_id)).attempt for run_id in queued} == {1}


TWO_CALLS = '/call calculator {"expression": "6*7"}\n/call calculator {"expression": "6*8"}'


async def test_tool_calls_that_were_begun_when_their_run_is_cancelled_are_metered(process, monkeypatch):
    begun = _hang_in_the_second_tool_call(monkeypatch)
    async with running(process.worker):
        run_id = await process.queue(TWO_CALLS)
        await eventually(lambda: len(begun) == 2, what="the second call is under way")
        process.executor.cancel(run_id)
        await process.reached(run_id, "cancelled")

    assert (await process.run(run_id)).tool_calls == 2
    assert (await process.events())["1:tool_calls"] == 2


async def test_a_run_that_goes_on_after_its_last_step_asks_nobody_more(process, ledger):
    tools = ({"type": "builtin", "name": "calculator"},)
    definition = AgentDefinition(model="kgents:echo", tools=tools, limits=Limits(max_steps=1))
    agent = Agent("agt_3", TENANT, "short", 1, definition, 0, 0)
    await ledger.write(Scope.system(), lambda connection: repository.insert_agent(connection, agent))
    said = [ModelResponse([ToolCallPart("calculator", '{"expression": "6*7"}', "call_1")])]
    async with running(process.worker):
        run_id = await process.queue("two", attempt=1, said=said, agent_id="agt_3")
        await process.reached(run_id, "failed")

    run = await process.run(run_id)
    assert (run.error["code"], run.tool_calls) == ("max-steps", 0)


async def test_between_tools_that_only_compute_others_get_their_turn(process, monkeypatch):
    turns, seen = 0, []

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def call(_toolbox, _name, _args):
        seen.append(turns)
        return "42"

    monkeypatch.setattr(Toolbox, "call", call)
    others = asyncio.create_task(other())
    async with running(process.worker):
        await process.reached(await process.queue(TWO_CALLS), "completed")
    others.cancel()

    assert seen[1] > seen[0]


async def test_a_run_s_tools_answer_so_much_and_no_more(process, monkeypatch):
    monkeypatch.setattr(runner, "MOST_RESULTS", 5)

    async def call(_toolbox, _name, _args):
        return "12345"

    monkeypatch.setattr(Toolbox, "call", call)
    async with running(process.worker):
        run_id = await process.queue(TWO_CALLS)
        await process.reached(run_id, "completed")

    text = (await process.run(run_id)).output.text
    assert "12345" in text
    assert "Error: the results of this run's tools have more than 5 characters together." in text


async def test_tool_calls_that_are_being_recorded_when_their_run_is_cancelled_are_metered_once(
    process, ledger, monkeypatch
):
    submit, recording, go_on = ledger.submit, asyncio.Event(), asyncio.Event()

    async def held_up(op, item):
        recording.set()
        await go_on.wait()
        return await submit(op, item)

    def is_step(item):
        return isinstance(item, StepRecord) and item.used.tool_calls and not item.finish

    def slow(op, item):
        return asyncio.ensure_future(held_up(op, item)) if is_step(item) else submit(op, item)

    monkeypatch.setattr(ledger, "submit", slow)
    async with running(process.worker):
        run_id = await process.queue(TWO_CALLS)
        await recording.wait()
        process.executor.cancel(run_id)
        go_on.set()
        await process.reached(run_id, "cancelled")

    assert {name: n for name, n in (await process.events()).items() if "tool_calls" in name} == {"1:tool_calls": 2}


CALL = ModelResponse([ToolCallPart("calculator", {"expression": "6*7"}, "call_1")])


@pytest.mark.parametrize(("meter", "said"), [("output_tokens", ()), ("tool_calls", (CALL,))])
async def test_a_run_that_was_begun_and_has_nothing_reserved_goes_on_only_within_the_quota(process, meter, said):
    await process.limit(meter, 0)

    async with running(process.worker):
        run_id = await process.queue(attempt=1, said=said, period=month_of(SystemClock().now()))
        await process.reached(run_id, "failed")

    assert (await process.run(run_id)).error["code"] == "quota-exceeded"
    assert await process.events() == {}


LAST_MONTH = {"created_at": month_bounds("2026-01")[0], "period": "2026-01", "reserved": Amounts(1, 20, 10, 0)}


async def test_a_run_of_a_month_that_is_over_is_begun_only_within_the_quota_of_this_one(process):
    await process.limit("runs", 0)

    async with running(process.worker):
        run_id = await process.queue(**LAST_MONTH)
        await process.reached(run_id, "failed")

    assert (await process.run(run_id)).error["code"] == "quota-exceeded"
    assert await process.events() == {}


async def test_what_a_run_had_reserved_in_a_month_that_is_over_is_released_there(process, ledger):
    reserved = Posting(TENANT, LAST_MONTH["created_at"], reserve=LAST_MONTH["reserved"])
    await ledger.write(Scope.system(), lambda connection: post(connection, [reserved], source="kgents"))
    await process.limit("runs", 1)

    async with running(process.worker):
        await process.queue("/sleep 0.1 /words 1000", **LAST_MONTH)
        this_month = month_of(SystemClock().now())

        async def moved():
            return (await process.balances()).get(this_month)

        _, reserved = await eventually(moved, what="it is reserved for in this month")

    assert reserved.runs == 1
    assert (await process.balances())["2026-01"] == (Amounts(), Amounts())


async def test_while_run_events_cannot_be_read_a_run_that_was_begun_waits_without_using_up_its_attempts(
    process, bus, monkeypatch
):
    monkeypatch.setattr(working, "BUSY_DELAY", 0.05)
    looks = 0

    async def away(_run_id):
        nonlocal looks
        looks += 1
        raise BusUnavailable("no stream takes this message, or it has no leader now.")

    with monkeypatch.context() as patch:
        patch.setattr(bus, "last_event", away)
        async with running(process.worker):
            begun, fresh = await process.queue(attempt=1), await process.queue()
            await eventually(lambda: looks > runs.MAX_ATTEMPTS, what="it has been looked for often")
            await process.reached(fresh, "completed")
            waiting = await process.run(begun)
            patch.undo()
            await process.reached(begun, "completed")

    assert (waiting.status, waiting.attempt) == ("queued", 1)
    assert (await process.run(begun)).attempt == 2


@pytest.mark.parametrize("status", ["suspended", "deleted"])
async def test_a_queued_run_of_a_tenant_that_is_not_active_is_cancelled_and_its_reservation_released(
    process, ledger, status
):
    run = a_run(
        TENANT,
        owner=None,
        mode="background",
        status="queued",
        attempt=0,
        input={"messages": [{"role": "user", "content": "hi"}]},
        reserved=(1, 10, 10, 0),
        started_at=None,
        period=month_of(1),
    )
    await process.executor.admit(Admission(run))
    change = sa.update(tenants).where(tenants.c.tenant_id == TENANT).values(status=status)
    await ledger.write(Scope.system(), lambda connection: connection.execute(change))

    async with running(process.worker):
        await process.send(queue_row(TENANT, run.run_id, 0, 0).payload.encode(), f"{run.run_id}:0")
        await process.emptied()

    ended = await process.run(run.run_id)
    balance = await ledger.read(Scope.system(), lambda connection: service.balance(connection, TENANT, 1))
    assert (ended.status, ended.attempt, ended.output) == ("cancelled", 0, None)
    assert (balance.used, balance.reserved) == (NOTHING, NOTHING)


class TestHandover:
    """A run that its process gave back in the middle of a step, when it was asked to end."""

    WORDS = 40
    SLOW = f"/sleep 0.05 /words {WORDS}"
    RESERVED = Amounts(1, 100, 1000, 0)

    @pytest.fixture(autouse=True)
    async def reserved(self, ledger):
        """What the test's one run has reserved, as its admission would have done."""
        posting = Posting(TENANT, SystemClock().now(), reserve=self.RESERVED)
        await ledger.write(Scope.system(), lambda connection: post(connection, [posting], source="kgents"))

    async def queued(self, process, text=SLOW, **fields):
        period = month_of(SystemClock().now())
        return await process.queue(text, reserved=tuple(self.RESERVED), period=period, **fields)

    async def heard(self, process, run_id, *, words):
        """Wait until so many words were said since its process began with the run."""

        async def last():
            found = await process._bus.last_event(run_id)
            return load_events(found[1])[-1].sequence if found else 0

        before = await last()

        async def said():
            return await last() > before + words

        await eventually(said, what=f"{words} words were said")

    async def handed_over(self, process, run_id):
        """Have the process end as it does when it is asked to."""
        await process.worker.stop()
        await process.executor.drain(0)
        await process.worker.finish(5)
        assert (await process.run(run_id)).status == "queued"

    async def cancel(self, ledger, run_id):
        now = SystemClock().now()
        return await ledger.write(
            Scope.tenant(TENANT),
            lambda connection: runs.request_cancel(connection, TENANT, run_id, now, source="kgents"),
        )

    async def suspend(self, ledger):
        change = sa.update(tenants).where(tenants.c.tenant_id == TENANT).values(status="suspended")
        await ledger.write(Scope.system(), lambda connection: connection.execute(change))

    async def again(self, process, run_id):
        """Put the message of the run that was given back into the queue, as the relay does."""
        attempt = (await process.run(run_id)).attempt
        await process.send(queue_row(TENANT, run_id, attempt, 0).payload.encode(), f"{run_id}:{attempt}")

    async def metered(self, process, ledger, run_id):
        """What the run used. Everywhere that is told, it is the same, and nothing stays reserved."""
        events = await ledger.read(Scope.system(), lambda connection: connection.execute(sa.select(usage_events)).all())
        sent = await ledger.read(
            Scope.system(),
            lambda connection: connection.execute(sa.select(outbox.c.payload).where(outbox.c.topic == "usage")).all(),
        )
        used = Amounts(*(sum(row.quantity for row in events if row.meter == meter) for meter in METERS))
        assert await process.balances() == {month_of(SystemClock().now()): (used, NOTHING)}
        run = await process.run(run_id)
        assert (run.input_tokens, run.output_tokens, run.tool_calls) == used[1:]
        assert run.reserved == (0, 0, 0, 0)
        of_the_meter = [event for row in sent for event in orjson.loads(row.payload)]
        assert {event["id"]: event["data"]["quantity"] for event in of_the_meter} == {
            row.event_id: row.quantity for row in events
        }
        assert {(row.run_id, row.agent_id, row.model) for row in events} <= {(run_id, "agt_1", "kgents:echo")}
        return used, {row.estimated for row in events}

    async def test_cancelled_in_the_queue_it_is_metered_with_what_was_said(self, process, ledger):
        async with running(process.worker):
            run_id = await self.queued(process)
            await self.heard(process, run_id, words=3)
            await self.handed_over(process, run_id)

        assert await process.events() == {}
        run = await self.cancel(ledger, run_id)

        used, estimated = await self.metered(process, ledger, run_id)
        assert (run.status, used.runs, used.input_tokens > 0, estimated) == ("cancelled", 1, True, {True})
        assert 3 <= used.output_tokens < 2 * self.WORDS
        assert set(await process.events()) == {"0:runs", "0:input_tokens", "0:output_tokens"}
        await self.cancel(ledger, run_id)
        assert (await self.metered(process, ledger, run_id))[0] == used

    async def test_made_again_it_is_metered_as_if_there_had_been_nothing_before(self, process, another, ledger):
        async with running(process.worker):
            run_id = await self.queued(process)
            await self.heard(process, run_id, words=3)
            await self.handed_over(process, run_id)
        async with running(another.worker):
            await self.again(another, run_id)
            await another.reached(run_id, "completed")

        used, estimated = await self.metered(process, ledger, run_id)
        assert (used.runs, used.output_tokens, estimated) == (1, self.WORDS, {False})
        assert (await process.run(run_id)).attempt == 2
        async with running(another.worker):
            undisturbed = await another.queue(self.SLOW)
            await another.reached(undisturbed, "completed")
        run = await process.run(undisturbed)
        assert used[1:] == (run.input_tokens, run.output_tokens, run.tool_calls)

    @pytest.mark.parametrize("why", ["suspended", "too many attempts", "no such model"])
    async def test_what_can_not_be_made_again_is_metered_with_what_was_said(
        self, process, another, ledger, monkeypatch, why
    ):
        async with running(process.worker):
            run_id = await self.queued(process)
            await self.heard(process, run_id, words=3)
            await self.handed_over(process, run_id)
        if why == "suspended":
            await self.suspend(ledger)
        elif why == "too many attempts":
            monkeypatch.setattr(runs, "MAX_ATTEMPTS", 1)
        else:
            monkeypatch.setattr(another.worker._planner, "work", _refuse)
        async with running(another.worker):
            await self.again(another, run_id)
            await another.reached(run_id, "cancelled" if why == "suspended" else "failed")

        used, estimated = await self.metered(process, ledger, run_id)
        assert (used.runs, used.output_tokens >= 3, estimated) == (1, True, {True})

    async def test_without_a_call_it_is_metered_with_nothing(self, process, ledger, monkeypatch):
        asked = _hold_up_steps(monkeypatch)
        async with running(process.worker):
            run_id = await self.queued(process)
            await asked.wait()
            await self.handed_over(process, run_id)

        await self.cancel(ledger, run_id)

        assert (await process.run(run_id)).cut_off is None
        assert await self.metered(process, ledger, run_id) == (NOTHING, set())

    async def test_what_a_later_process_did_not_get_to_is_metered_with_what_was_said(
        self, process, another, ledger, monkeypatch
    ):
        async with running(process.worker):
            run_id = await self.queued(process)
            await self.heard(process, run_id, words=3)
            await self.handed_over(process, run_id)
        asked = _hold_up_steps(monkeypatch)
        async with running(another.worker):
            await self.again(another, run_id)
            await asked.wait()
            another.executor.cancel(run_id)
            await another.reached(run_id, "cancelled")

        used, estimated = await self.metered(process, ledger, run_id)
        assert (used.runs, used.output_tokens >= 3, estimated) == (1, True, {True})

    @pytest.mark.parametrize(("first", "then"), [(20, 2), (2, 20)])
    async def test_given_back_twice_it_is_metered_with_the_call_that_said_most(
        self, process, another, ledger, first, then
    ):
        async with running(process.worker):
            run_id = await self.queued(process)
            await self.heard(process, run_id, words=first)
            await self.handed_over(process, run_id)
        once = (await process.run(run_id)).cut_off
        async with running(another.worker):
            await self.again(another, run_id)
            await another.reached(run_id, "running")
            await self.heard(process, run_id, words=then + 1)  # after the event that it was begun again
            await self.handed_over(another, run_id)
        twice = (await process.run(run_id)).cut_off

        await self.cancel(ledger, run_id)

        assert (twice == once) == (first > then)
        assert await self.metered(process, ledger, run_id) == (twice.used, {True})

    async def test_its_tool_calls_are_metered_too(self, process, ledger, monkeypatch):
        begun = _hang_in_the_second_tool_call(monkeypatch)
        async with running(process.worker):
            run_id = await self.queued(process, TWO_CALLS)
            await eventually(lambda: len(begun) == 2, what="the second call is under way")
            await self.handed_over(process, run_id)
        before = await process.events()

        await self.cancel(ledger, run_id)

        assert await process.events() == before | {"1:tool_calls": 2}
        assert (await self.metered(process, ledger, run_id))[1] == {False}


def _refuse(*_: object) -> None:
    raise Unprocessable("There is no such model here.")


def _hang_in_the_second_tool_call(monkeypatch) -> list[str]:
    """The second call of a tool does not end; answers the names of those that were begun, which grow."""
    begun: list[str] = []

    async def call(_toolbox, name, _args):
        begun.append(name)
        return await asyncio.Event().wait() if len(begun) == 2 else "42"

    monkeypatch.setattr(Toolbox, "call", call)
    return begun


def _hold_up_steps(monkeypatch) -> asyncio.Event:
    """No process gets to a model call any more; the event says that one is about to."""
    asked = asyncio.Event()

    async def hold_up(*_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(runner.RunTask, "_reserve_for", hold_up)
    return asked
