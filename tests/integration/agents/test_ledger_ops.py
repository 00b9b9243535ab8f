"""Admission and recording of runs on both databases: exact under races, fenced against the dead, once for each work."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from kgents.agents import repository, runs
from kgents.agents.ledger_ops import Admission, Admit, Finish, IdempotencyKey, RecordStep, StepRecord
from kgents.agents.model import Agent, AgentDefinition, CutOff, Output
from kgents.agents.runs import Heartbeat
from kgents.clock import SECOND, month_bounds
from kgents.errors import Conflict, NotFound, QuotaExceeded, Unprocessable
from kgents.store.engine import Scope, open_store
from kgents.store.tables import agents, balances, messages, outbox, quotas, sessions, tenants, usage_events
from kgents.usage.model import Amounts
from tests.support.costs import cost_of
from tests.support.runs import a_run

NOW = month_bounds("2026-01")[1] - 1  # the last moment of January
DAY = 86_400 * SECOND
WORST = Amounts(1, 20, 100, 0)
USED = Amounts(1, 8, 9, 0)


@pytest.fixture
async def ledger(store):
    """A database with two tenants, each with an agent and a session."""

    def unit(connection):
        for name in ("ten_1", "ten_2"):
            row = {"tenant_id": name, "name": name, "status": "active", "created_at": 0, "updated_at": 0}
            connection.execute(sa.insert(tenants), row)
            agent = {"agent_id": f"agt_{name}", "tenant_id": name, "name": "a", "version": 1}
            connection.execute(sa.insert(agents), {**agent, "created_at": 0, "updated_at": 0})
            session = {"session_id": f"ses_{name}", "tenant_id": name, "agent_id": f"agt_{name}", "metadata": "{}"}
            connection.execute(sa.insert(sessions), {**session, "created_at": 0, "updated_at": 0})

    await store.write(Scope.system(), unit)
    return store


def run(tenant="ten_1", **fields):
    usual = {"agent_id": f"agt_{tenant}", "input": {"messages": []}, "reserved": WORST}
    return a_run(tenant, **{**usual, "created_at": NOW, "started_at": NOW, **fields})


def step(of, **fields):
    made = StepRecord(of.run_id, of.tenant_id, of.attempt, of.agent_id, "kgents:echo", 0, NOW)
    return made._replace(**fields)


def finished(of, **fields):
    return step(of, used=USED, finish=Finish("completed", Output("hi"), None, 2, ['{"said": 1}']), **fields)


ADMIT, RECORD = Admit("kgents"), RecordStep("kgents")


async def outcomes(store, op, *items):
    return await asyncio.gather(*(store.submit(op, item) for item in items), return_exceptions=True)


async def balance(store, tenant="ten_1", period="2026-01"):
    """(used, reserved)"""
    mine = sa.select(balances).where(balances.c.tenant_id == tenant, balances.c.period == period)
    row = await store.read(Scope.system(), lambda connection: connection.execute(mine).first())
    return (Amounts(*row[2:6]), Amounts(*row[6:10])) if row else None


async def rows(store, table):
    return await store.read(Scope.system(), lambda connection: connection.execute(sa.select(table)).mappings().all())


async def found(store, of):
    return await store.read(
        Scope.system(), lambda connection: repository.run_by_id(connection, of.tenant_id, of.run_id)
    )


async def limit(store, tenant="ten_1", **limits):
    made = [{"tenant_id": tenant, "meter": meter, "monthly_limit": most} for meter, most in limits.items()]
    await store.write(Scope.system(), lambda connection: connection.execute(sa.insert(quotas), made))


async def test_an_admitted_run_is_recorded_with_its_reservation(ledger):
    one = run(input={"messages": [{"role": "user", "content": "ünï\0"}]}, traceparent="00-a", last_event=None)

    [admitted] = await outcomes(ledger, ADMIT, Admission(one, None))

    assert admitted.replay_of is None
    assert await found(ledger, one) == one
    assert await balance(ledger) == (Amounts(), WORST)
    assert await rows(ledger, outbox) == []


async def test_a_queued_run_leaves_for_the_workers_with_its_admission(ledger):
    one = run(status="queued", attempt=0, owner=None)

    await outcomes(ledger, ADMIT, Admission(one, None))

    assert [(row["topic"], row["message_id"]) for row in await rows(ledger, outbox)] == [("run", f"{one.run_id}:0")]


async def test_the_end_of_a_run_is_recorded_with_its_usage_and_gives_back_what_is_left(ledger):
    one = run(session_id="ses_ten_1")
    await outcomes(ledger, ADMIT, Admission(one, None))

    [recorded] = await outcomes(ledger, RECORD, finished(one))

    ended = await found(ledger, one)
    assert recorded.refusal is None
    assert (ended.status, ended.output, ended.owner, ended.finished_at) == ("completed", Output("hi"), None, NOW)
    assert (ended.input_tokens, ended.output_tokens, ended.reserved) == (8, 9, (0, 0, 0, 0))
    assert await balance(ledger) == (USED, Amounts())
    events = {row["event_id"]: row["quantity"] for row in await rows(ledger, usage_events)}
    assert events == {f"{one.run_id}:0:{meter}": n for meter, n in USED._asdict().items() if n}
    assert [row["topic"] for row in await rows(ledger, outbox)] == ["usage"]


async def test_a_step_is_recorded_and_the_next_is_reserved_for(ledger):
    one = run()
    await outcomes(ledger, ADMIT, Admission(one, None))

    await outcomes(ledger, RECORD, step(one, used=USED, reserve=WORST, message="{}"))

    assert await balance(ledger) == (USED, WORST)
    assert (await found(ledger, one)).status == "running"


async def test_a_process_that_was_taken_for_dead_records_nothing(ledger):
    one = run()
    await outcomes(ledger, ADMIT, Admission(one, None))
    late = finished(one._replace(attempt=0))

    refused, recorded = await outcomes(ledger, RECORD, late, finished(one))

    assert isinstance(refused, Conflict)
    assert refused.code == "run-taken-over"
    assert recorded.refusal is None
    assert await balance(ledger) == (USED, Amounts())


async def test_a_run_ends_once(ledger):
    one = run()
    await outcomes(ledger, ADMIT, Admission(one, None))

    await outcomes(ledger, RECORD, finished(one))
    [again] = await outcomes(ledger, RECORD, finished(one, step=1))

    assert isinstance(again, Conflict)
    assert await balance(ledger) == (USED, Amounts())


async def test_another_tenants_run_is_not_recorded(ledger):
    one = run()
    await outcomes(ledger, ADMIT, Admission(one, None))

    [refused] = await outcomes(ledger, RECORD, finished(one._replace(tenant_id="ten_2")))

    assert isinstance(refused, Conflict)
    assert await balance(ledger, "ten_2") is None
    assert (await found(ledger, one)).status == "running"


HEARD = CutOff(0, "kgents:echo", (1, 30, 5, 0), True)  # more than was reserved, as an estimate may be


async def given_back(store, of, cut_off=HEARD):
    """Have the run queued again with what its step had used, as its process does at its end."""
    left = of._replace(cut_off=cut_off)
    return await store.write(Scope.system(), lambda connection: runs.requeue(connection, left, NOW))


async def claim(store, of):
    """The run, taken by another process."""
    agent = Agent(of.agent_id, of.tenant_id, "a", 1, AgentDefinition("kgents:echo"), 0, 0)

    def unit(connection):
        repository.insert_version(connection, agent)
        return runs.claim(connection, of.tenant_id, of.run_id, "proc_2", NOW, source="kgents").run

    return await store.write(Scope.system(), unit)


async def ended(store, of):
    """The run after its end, which nobody carried out, and its usage events with whether they are estimated."""
    await store.write(
        Scope.system(), lambda connection: runs.end(connection, of, Finish("cancelled"), NOW, source="kgents")
    )
    events = {row["event_id"].partition(":")[2]: row["quantity"] for row in await rows(store, usage_events)}
    return await found(store, of), events, {row["estimated"] for row in await rows(store, usage_events)}


async def test_what_a_step_had_used_that_nobody_makes_again_is_metered_at_the_run_s_end(ledger):
    one = run(session_id="ses_ten_1")
    await outcomes(ledger, ADMIT, Admission(one, None))
    assert await given_back(ledger, one)
    assert (await found(ledger, one)).cut_off == HEARD
    assert await balance(ledger) == (Amounts(), WORST)

    for _ in range(2):  # the second time it has ended
        of, events, estimated = await ended(ledger, one)

        assert (of.status, of.input_tokens, of.output_tokens, of.reserved) == ("cancelled", 30, 5, (0, 0, 0, 0))
        assert (events, estimated) == ({"0:runs": 1, "0:input_tokens": 30, "0:output_tokens": 5}, {True})
        assert await balance(ledger) == (Amounts(*HEARD.used), Amounts())
        assert await rows(ledger, messages) == []


async def test_what_a_step_had_used_is_not_metered_beside_the_step(ledger):
    one = run()
    await outcomes(ledger, ADMIT, Admission(one, None))
    await given_back(ledger, one)
    claimed = await claim(ledger, one)
    await outcomes(ledger, RECORD, step(claimed, used=USED, reserve=WORST, message="{}"))
    await given_back(ledger, claimed, None)

    _, events, estimated = await ended(ledger, claimed)

    assert (events, estimated) == ({"0:runs": 1, "0:input_tokens": 8, "0:output_tokens": 9}, {False})
    assert await balance(ledger) == (USED, Amounts())


async def test_what_a_step_had_used_outlives_a_process_that_was_killed_after_it(ledger):
    one = run()
    await outcomes(ledger, ADMIT, Admission(one, None))
    await given_back(ledger, one)
    claimed = await claim(ledger, one)
    killed = runs.Held(one.tenant_id, one.run_id, claimed.attempt, False)
    assert await ledger.write(Scope.system(), lambda connection: runs.requeue(connection, killed, NOW))

    of, _, _ = await ended(ledger, claimed)

    assert (of.input_tokens, of.output_tokens) == (30, 5)


async def test_usage_is_of_the_month_in_which_it_was_used(ledger):
    one = run()
    await outcomes(ledger, ADMIT, Admission(one, None))

    await outcomes(ledger, RECORD, step(one, used=USED, reserve=WORST, now=NOW))
    await outcomes(ledger, RECORD, finished(one, step=1, now=NOW + 1))

    assert await balance(ledger, period="2026-01") == (USED, Amounts())
    assert await balance(ledger, period="2026-02") == (USED, Amounts())


async def test_of_many_at_once_exactly_as_many_are_admitted_as_there_is_room_for(ledger, database):
    await limit(ledger, input_tokens=20 * 17)
    others = [open_store(database.url) for _ in range(2)]
    stores = [ledger, *others]

    found_ = await asyncio.gather(
        *(stores[n % 3].submit(ADMIT, Admission(run(), None)) for n in range(60)), return_exceptions=True
    )

    for other in others:
        await other.close()
    refused = [outcome for outcome in found_ if isinstance(outcome, BaseException)]
    assert {type(outcome) for outcome in refused} == {QuotaExceeded}
    assert len(refused) == 60 - 17
    assert (await balance(ledger))[1] == Amounts(17, 340, 1700, 0)


async def test_a_tenants_quota_is_no_others(ledger):
    await limit(ledger, runs=0)

    refused, admitted = await outcomes(ledger, ADMIT, Admission(run(), None), Admission(run("ten_2"), None))

    assert isinstance(refused, QuotaExceeded)
    assert admitted.replay_of is None


async def test_what_was_used_is_recorded_even_where_the_next_step_has_no_room(ledger):
    one = run()
    await outcomes(ledger, ADMIT, Admission(one, None))
    await limit(ledger, output_tokens=10)

    [recorded] = await outcomes(ledger, RECORD, step(one, used=USED, reserve=WORST))

    assert isinstance(recorded.refusal, QuotaExceeded)
    assert await balance(ledger) == (USED, Amounts())


async def test_of_racers_with_one_key_one_runs_and_the_others_are_told(ledger, database):
    other = open_store(database.url)
    key = IdempotencyKey("k", b"1", NOW + DAY)
    racers = [run() for _ in range(20)]

    found_ = await asyncio.gather(
        *((ledger, other)[n % 2].submit(ADMIT, Admission(racer, key)) for n, racer in enumerate(racers)),
        return_exceptions=True,
    )

    await other.close()
    first = [outcome for outcome in found_ if not isinstance(outcome, BaseException) and outcome.replay_of is None]
    replays = {outcome.replay_of for outcome in found_ if getattr(outcome, "replay_of", None)}
    refused = [outcome for outcome in found_ if isinstance(outcome, BaseException)]
    assert len(first) == 1
    assert len(replays) <= 1
    assert all(isinstance(outcome, Conflict) and outcome.code == "idempotency-key-in-use" for outcome in refused)
    assert await balance(ledger) == (Amounts(), WORST)


async def test_a_key_with_another_request_is_refused_and_an_expired_one_is_new(ledger):
    await outcomes(ledger, ADMIT, Admission(run(), IdempotencyKey("k", b"1", NOW + DAY)))

    [other] = await outcomes(ledger, ADMIT, Admission(run(), IdempotencyKey("k", b"2", NOW + DAY)))
    later = run(created_at=NOW + DAY)
    [expired] = await outcomes(ledger, ADMIT, Admission(later, IdempotencyKey("k", b"2", NOW + 2 * DAY)))

    assert isinstance(other, Unprocessable)
    assert expired.replay_of is None


async def test_a_refused_run_leaves_its_key_free(ledger):
    await limit(ledger, runs=0)
    key = IdempotencyKey("k", b"1", NOW + DAY)

    refused = await outcomes(ledger, ADMIT, Admission(run(), key))
    raised = sa.update(quotas).values(monthly_limit=5)
    await ledger.write(Scope.system(), lambda connection: connection.execute(raised))
    [admitted] = await outcomes(ledger, ADMIT, Admission(run(), key))

    assert isinstance(refused[0], QuotaExceeded)
    assert admitted.replay_of is None


async def test_of_racers_in_one_session_one_runs(ledger, database):
    other = open_store(database.url)

    found_ = await asyncio.gather(
        *((ledger, other)[n % 2].submit(ADMIT, Admission(run(session_id="ses_ten_1"), None)) for n in range(12)),
        return_exceptions=True,
    )

    await other.close()
    refused = [outcome for outcome in found_ if isinstance(outcome, BaseException)]
    assert len(refused) == 11
    assert {outcome.code for outcome in refused} == {"session-busy"}


async def test_another_tenants_session_is_not_there(ledger):
    [refused] = await outcomes(ledger, ADMIT, Admission(run(session_id="ses_ten_2"), None))

    assert isinstance(refused, NotFound)
    assert await balance(ledger) is None


async def test_many_tenants_at_once_never_wait_for_each_other_for_good(ledger, database):
    other = open_store(database.url)
    pairs = [(run(f"ten_{1 + n % 2}"), (ledger, other)[n // 2 % 2]) for n in range(80)]

    async def whole(one, store):
        await store.submit(ADMIT, Admission(one, None))
        await store.submit(RECORD, finished(one))

    async with asyncio.timeout(60):
        await asyncio.gather(*(whole(one, store) for one, store in pairs))

    await other.close()
    for tenant in ("ten_1", "ten_2"):
        assert await balance(ledger, tenant) == (Amounts(40, 320, 360, 0), Amounts())


@pytest.mark.parametrize("session", [None, "ses_ten_1"])
async def test_a_run_costs_the_same_however_many_there_were(ledger, session):
    async def whole():
        one = run(session_id=session)
        await outcomes(ledger, ADMIT, Admission(one, None))
        await outcomes(ledger, RECORD, finished(one))

    def at_once(connection):
        one = run(session_id=session)
        ADMIT.apply(connection, [Admission(one, None)])
        RECORD.apply(connection, [finished(one)])

    costs = []
    for earlier in (20, 400):
        for _ in range(earlier):
            await whole()
        costs.append(
            await ledger.write(Scope.system(), lambda connection: cost_of(connection, lambda: at_once(connection)))
        )
    assert costs[1] < 1.5 * costs[0], costs


LOOKS = {
    "orphans": lambda connection: runs.orphans(connection, [Heartbeat("proc_1", 1)], 10),
    "other tenants": lambda connection: runs.first_queued(connection, 10, after="", without=["ten_1"]),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
async def test_a_look_costs_the_same_however_many_runs_are_queued(ledger, look):
    costs = []
    for more in (20, 1000):
        queued = [run(status="queued", attempt=0, owner=None) for _ in range(more)]
        await ledger.write(Scope.system(), lambda connection, queued=queued: repository.insert_runs(connection, queued))
        costs.append(
            await ledger.write(Scope.system(), lambda connection: cost_of(connection, lambda: look(connection)))
        )
    assert costs[1] <= costs[0] + 5, costs


async def test_queued_runs_of_other_tenants_are_found_after_a_tenant_and_then_from_the_first(ledger):
    queued = [run(tenant, status="queued", attempt=0, owner=None) for tenant in ("ten_1", "ten_2", "ten_1")]
    await ledger.write(Scope.system(), lambda connection: repository.insert_runs(connection, [*queued, run()]))

    async def first(most, **options):
        return await ledger.read(Scope.system(), lambda connection: runs.first_queued(connection, most, **options))

    # The oldest first; of the same millisecond, whichever.
    one, two, three = sorted((each.tenant_id, each.run_id) for each in queued)
    assert await first(9, after="", without=[]) == [one, two, three]
    assert await first(9, after="ten_1", without=[]) == [three, one, two]
    assert await first(9, after="ten_2", without=["ten_1"]) == [three]
    assert await first(1, after="", without=[]) == [one]
