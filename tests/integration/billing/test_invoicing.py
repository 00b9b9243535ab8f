"""Invoices against the store, on both databases: what they charge is what was used, and they are made once."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kgents.billing import invoicing
from kgents.billing.model import Price, Terms
from kgents.billing.service import BillingService
from kgents.clock import SECOND, ManualClock, month_bounds
from kgents.store.engine import Scope
from kgents.store.tables import invoices
from kgents.telemetry.metrics import Metrics
from kgents.tenants.model import SYSTEM
from kgents.tenants.service import TenantService
from kgents.usage.model import METERS, Amounts
from kgents.workers.invoicer import Invoicer
from tests.support.ledger import post_group, posting, tenant_with

START, END = month_bounds("2026-10")
DELAY = 3600.0
CLOSED = END + round(DELAY * SECOND)
prices = st.builds(
    Price,
    st.sampled_from(METERS),
    st.sampled_from([None, "kgents:echo", "other"]),
    st.integers(0, 10_000),
    st.integers(1, 1_000),
    st.integers(0, 50),
)
all_terms = st.builds(
    Terms,
    st.just("pro"),
    st.sampled_from(["eur", "jpy"]),
    st.integers(0, 100_000),
    st.lists(prices, max_size=6, unique_by=lambda price: (price.meter, price.model)).map(tuple),
    st.just({}),
)
moments = st.integers(START, END - 1)
used = st.builds(Amounts, st.integers(0, 1), st.integers(0, 3_000), st.integers(0, 2_000), st.integers(0, 20))
steps = st.tuples(moments, used, st.sampled_from(["kgents:echo", "other", "third"]))


class World:
    """Tenants on plans, at a time that the test decides."""

    def __init__(self, store):
        self.store = store
        self.clock = ManualClock(START)
        self.billing = BillingService(self.clock, TenantService(self.clock))
        self.metrics = Metrics("worker")

    async def do(self, method, *arguments):
        return await self.store.write(Scope.system(), lambda c: getattr(self.billing, method)(c, *arguments, SYSTEM))

    async def subscribe(self, tenant, terms, at=None):
        self.to(at)
        plan = await self.do("create_plan", terms)
        await self.do("subscribe", tenant, plan.plan_id)
        await self.do("archive_plan", plan.plan_id)  # its name is free for the next

    def to(self, moment):
        if moment is not None:
            self.clock.advance((moment - self.clock.now()) / SECOND)

    async def close(self, at=CLOSED):
        self.to(at)
        return await Invoicer(self.store, self.metrics, self.clock, DELAY).close()

    async def invoices(self, tenant):
        page = await self.store.read(Scope.tenant(tenant), lambda c: self.billing.invoices(c, tenant, limit=100))
        return list(reversed(page.items))

    async def differences(self, invoice):
        compare = partial(invoicing.differences, invoice=invoice)
        return await self.store.read(Scope.tenant(invoice.tenant_id), compare)

    async def use(self, tenant, *steps):
        await post_group(
            self.store, *(posting(tenant, at, amounts, model=model) for at, amounts, model in steps if any(amounts))
        )


@pytest.fixture
async def world(store):
    return World(store)


PRO = Terms("pro", "eur", 3_100, (Price("input_tokens", None, 3, 10, 0), Price("runs", None, 7, 1, 1)), {"runs": 100})
CHEAP = replace(PRO, name="cheap", monthly_fee=0, prices=(Price("runs", None, 1, 1, 0),))
STEP = (START + 10, Amounts(1, 5, 0, 0), "other")


@settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
@given(terms=all_terms, found=st.lists(steps, max_size=12), changes=st.lists(moments, max_size=2).map(sorted))
async def test_invoices_charge_exactly_what_the_ledger_has(store, terms, found, changes):
    """However often the plan is changed in a month: each unit is on one invoice, at the price of its moment."""
    world = World(store)
    tenant = await tenant_with(store)
    await world.subscribe(tenant, terms, START)
    for number, moment in enumerate(changes):
        await world.subscribe(tenant, replace(terms, monthly_fee=number), moment)
    await world.use(tenant, *found)

    await world.close()

    made = await world.invoices(tenant)
    total = Counter()
    for invoice in made:
        assert await world.differences(invoice) == []
        total += Counter(invoicing.quantities(invoice)._asdict())
    expected = Counter()
    for _, amounts, _ in found:
        expected += Counter(amounts._asdict())
    assert total == expected
    assert {invoice.currency for invoice in made} == {terms.currency}
    assert len(made) == len({START, *changes}) or len(changes) > len(set(changes))


async def test_a_month_is_charged_by_its_plan(world, store):
    tenant = await tenant_with(store)
    await world.subscribe(tenant, PRO)
    await world.use(tenant, STEP, (START + 20, Amounts(1, 10, 4, 0), "big"), (END - 1, Amounts(1, 0, 0, 0), "big"))

    assert await world.close() == 1

    (invoice,) = await world.invoices(tenant)
    assert [(line.meter, line.quantity, line.amount) for line in invoice.lines] == [
        (None, 1, 3_100),
        ("runs", 3, 14),
        ("input_tokens", 15, 5),
        ("output_tokens", 4, 0),
    ]
    assert (invoice.period, invoice.currency, invoice.status, invoice.total) == ("2026-10", "eur", "open", 3_119)


async def test_a_month_is_open_for_a_while_after_its_end(world, store):
    tenant = await tenant_with(store)
    await world.subscribe(tenant, PRO)
    assert await world.close(CLOSED - 1) == 0
    assert await world.close(CLOSED) == 1


async def test_what_is_of_the_next_month_is_on_its_invoice(world, store):
    tenant = await tenant_with(store)
    await world.subscribe(tenant, PRO)
    await world.use(tenant, (END - 1, Amounts(1, 1, 0, 0), "m"), (END, Amounts(0, 100, 0, 0), "m"))
    following = month_bounds("2026-11")[1]

    assert await world.close(following + round(DELAY * SECOND)) == 2  # also of the month that nobody closed in time

    october, november = await world.invoices(tenant)
    assert invoicing.quantities(october) == Amounts(1, 1, 0, 0)
    assert invoicing.quantities(november) == Amounts(0, 100, 0, 0)


async def test_a_subscription_that_ends_is_charged_for_its_part(world, store):
    tenant = await tenant_with(store)
    await world.subscribe(tenant, PRO)
    middle = (START + END) // 2
    await world.use(tenant, (middle - 1, Amounts(1, 9, 0, 0), "m"), (middle, Amounts(0, 500, 0, 0), "m"))
    world.to(middle)
    await world.do("unsubscribe", tenant)

    assert await world.close(middle + round(DELAY * SECOND)) == 1
    assert await world.close() == 0

    (invoice,) = await world.invoices(tenant)
    assert invoicing.quantities(invoice) == Amounts(1, 9, 0, 0)
    assert invoice.lines[0].amount == 1_550


async def test_a_change_of_plans_divides_the_month(world, store):
    tenant = await tenant_with(store)
    await world.subscribe(tenant, PRO)
    moment = START + 1_000_000
    await world.subscribe(tenant, CHEAP, moment)
    await world.use(tenant, (moment - 1, Amounts(1, 0, 0, 0), "m"), (moment, Amounts(2, 0, 0, 0), "m"))

    await world.close()

    assert [(each.lines[-1].plan, each.lines[-1].quantity) for each in await world.invoices(tenant)] == [
        ("pro", 1),
        ("cheap", 2),
    ]


async def test_several_invoicers_make_one_invoice(world, store):
    tenants = [await tenant_with(store) for _ in range(5)]
    for tenant in tenants:
        await world.subscribe(tenant, PRO)
    world.to(CLOSED)
    made = await asyncio.gather(*(Invoicer(store, world.metrics, world.clock, DELAY).close() for _ in range(4)))
    assert sum(made) == 5
    assert [len(await world.invoices(tenant)) for tenant in tenants] == [1] * 5


async def test_one_that_can_not_be_made_is_told_and_keeps_no_other_back(world, store, monkeypatch):
    monkeypatch.setattr(invoicing, "MOST_MODELS", 2)
    tenants = [await tenant_with(store) for _ in range(3)]
    for tenant in tenants:
        await world.subscribe(tenant, PRO)
    await world.use(tenants[1], *((START + number, Amounts(1, 0, 0, 0), f"m{number}") for number in range(3)))

    assert await world.close() == 2

    assert [len(await world.invoices(tenant)) for tenant in tenants] == [1, 0, 1]
    assert b"kgents_invoice_differences_total 1.0" in world.metrics.expose()


async def test_what_costs_nothing_is_paid(world, store):
    tenant = await tenant_with(store)
    await world.subscribe(tenant, CHEAP)
    await world.close()
    assert [(each.status, each.total) for each in await world.invoices(tenant)] == [("paid", 0)]


async def test_a_difference_is_seen(world, store):
    """The control: usage that came too late, and an invoice that was changed, differ from the ledger."""
    tenant = await tenant_with(store)
    await world.subscribe(tenant, PRO)
    await world.use(tenant, STEP)
    await world.close()
    (invoice,) = await world.invoices(tenant)
    assert await world.differences(invoice) == []

    await world.use(tenant, (START + 11, Amounts(0, 3, 0, 0), "m"))
    assert [(each.what, each.invoiced, each.found) for each in await world.differences(invoice)] == [
        ("input_tokens", 5, 8)
    ]
    fee, *lines = invoice.lines
    changed = replace(invoice, lines=(fee._replace(amount=1), *lines))
    assert ("amount", 3, 3_102) in [(each.what, each.invoiced, each.found) for each in await world.differences(changed)]


async def test_an_invoice_is_made_once_for_good(world, store):
    tenant = await tenant_with(store)
    await world.subscribe(tenant, PRO)
    await world.close()
    before = await world.invoices(tenant)
    await world.use(tenant, STEP)
    assert await world.close() == 0
    assert await world.invoices(tenant) == before
    rows = await store.read(Scope.system(), lambda c: c.execute(sa.select(invoices.c.tenant_id)).all())
    assert [row.tenant_id for row in rows] == [tenant]


async def test_today_has_come_to_what_was_used_at_its_price(world, store):
    tenants = [await tenant_with(store) for _ in range(3)]
    for tenant in tenants[:2]:
        await world.subscribe(tenant, PRO)
        await world.use(tenant, STEP)
    await world.use(tenants[2], STEP)  # pays for nothing
    world.to(START + 12 * 3600 * SECOND)
    await Invoicer(store, world.metrics, world.clock, DELAY).tell()
    # half a day's fee (50), a run (7) and five tokens (1.5, rounded up), twice
    assert b'kgents_revenue_today_minor_units{currency="eur"} 118.0' in world.metrics.expose()
