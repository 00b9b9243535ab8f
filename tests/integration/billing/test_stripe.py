"""Invoices at Stripe, on both databases: each is there once, as the ledger has it, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import Random

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kgents.billing import inbox, invoicing
from kgents.billing.gateway import Gateway, StripeUnavailable
from kgents.billing.model import Price, Terms
from kgents.billing.service import BillingService
from kgents.clock import SECOND, ManualClock, month_bounds
from kgents.errors import Conflict, Unavailable
from kgents.store.engine import Scope
from kgents.store.tables import invoices
from kgents.telemetry.metrics import Metrics
from kgents.tenants.model import SYSTEM
from kgents.tenants.service import TenantService
from kgents.usage.model import Amounts
from kgents.workers.collector import AGAIN, Collector
from kgents.workers.inbox import Inbox
from kgents.workers.invoicer import Invoicer
from tests.support.ledger import post_group, posting, tenant_with
from tests.support.stripe import FakeStripe
from tests.support.stripe_parameters import Refused

START, END = month_bounds("2026-10")
DAY = 86_400.0
SECRET = "whsec_of_the_tests"
PRO = Terms("pro", "eur", 3_100, (Price("input_tokens", None, 3, 10, 0), Price("runs", None, 7, 1, 1)), {})


USED = Amounts(1, 1_000, 0, 0)


class World:
    """A database, a Stripe, and a time that the test decides, the same for both."""

    def __init__(self, store, stripe, clock):
        self.store = store
        self.stripe = stripe
        self.clock = clock
        self.billing = BillingService(clock, TenantService(clock))
        self.metrics = Metrics("worker")
        self.gateway = Gateway(stripe.api_key, stripe.url)
        self.collector = self.a_collector()
        self.inbox = Inbox(store, self.gateway, self.billing, self.metrics, clock)

    def a_collector(self):
        return Collector(self.store, self.gateway, self.billing, self.metrics, self.clock)

    async def do(self, method, *arguments):
        return await self.store.write(Scope.system(), lambda c: getattr(self.billing, method)(c, *arguments, SYSTEM))

    async def invoice(self, terms=PRO, amounts=USED):
        """A tenant's open invoice of a month."""
        self.clock.advance((START - self.clock.now()) / SECOND)
        tenant = await tenant_with(self.store)
        plan = await self.do("create_plan", terms)
        await self.do("subscribe", tenant, plan.plan_id)
        await self.do("archive_plan", plan.plan_id)
        if any(amounts):
            await post_group(self.store, posting(tenant, START + SECOND, amounts))
        self.clock.advance((END - START) / SECOND)
        await Invoicer(self.store, self.metrics, self.clock, 0.0).close()
        page = await self.store.read(Scope.tenant(tenant), lambda c: self.billing.invoices(c, tenant))
        return page.items[0]

    async def again(self, invoice):
        """The invoice as it is now."""
        read = partial(self.billing.invoice, tenant_id=invoice.tenant_id, invoice_id=invoice.invoice_id)
        return await self.store.read(Scope.tenant(invoice.tenant_id), read)

    async def collect(self, tries=1):
        """Collect, as often as that is needed; answers how often that was."""
        for number in range(1, tries + 1):
            try:
                await self.collector.step()
            except Unavailable:
                assert number < tries
                continue
            if not (await self.store.read(Scope.system(), self.billing.uncollected)).count:
                return number
        return tries

    def at_stripe(self, invoice):
        """What Stripe has of an invoice: everything but drafts."""
        return [
            each
            for each in self.stripe.list_invoices(limit=100)["data"]
            if each["metadata"].get("kgents_invoice") == invoice.invoice_id and each["status"] != "draft"
        ]

    async def told(self, events):
        """Have Stripe's events come in, signed."""
        for event in events:
            body, signature = self.stripe.signed(event, SECRET)
            found = inbox.verify(body, signature, SECRET, self.clock.now())
            if found is not None:
                await self.store.write(Scope.system(), partial(inbox.put, event=found, now=self.clock.now()))

    async def forget_that_it_was_sent(self, invoice):
        """As after a restore of a backup from before."""
        forget = sa.update(invoices).where(invoices.c.invoice_id == invoice.invoice_id).values(stripe_id=None)
        await self.store.write(Scope.system(), lambda c: c.execute(forget))


@pytest.fixture
def stripe():
    with FakeStripe(ManualClock(END)) as fake:
        yield fake


@pytest.fixture
async def world(store, stripe):
    made = World(store, stripe, stripe.clock)
    yield made
    await made.gateway.aclose()


async def test_an_invoice_is_at_stripe_as_it_is_here(world):
    invoice = await world.invoice()
    assert await world.collector.step() == 1

    (there,) = world.at_stripe(invoice)
    kept = await world.again(invoice)
    lines = world.stripe.list_lines(there["id"])["data"]
    assert (there["status"], there["total"], there["currency"]) == ("open", invoice.total, "eur")
    assert sorted(line["amount"] for line in lines) == sorted(line.amount for line in invoice.lines)
    assert {line["period"]["start"] for line in lines} == {START // SECOND}
    assert there["metadata"] == {"kgents_invoice": invoice.invoice_id, "kgents_tenant": invoice.tenant_id}
    assert (kept.stripe_id, kept.payment_url, kept.status) == (there["id"], there["hosted_invoice_url"], "open")
    assert kept.lines == invoice.lines
    assert await world.collector.step() == 0


async def test_a_tenant_is_one_customer_with_its_name(world):
    first = await world.invoice()
    await world.collect()
    (customer,) = world.stripe.list_customers()["data"]
    tenant = await world.store.read(Scope.system(), partial(TenantService(world.clock).get, tenant_id=first.tenant_id))
    assert (customer["name"], customer["metadata"]) == (tenant.name, {"kgents_tenant": first.tenant_id})


async def test_an_invoice_of_nothing_is_not_sent(world):
    invoice = await world.invoice(replace(PRO, monthly_fee=0), Amounts(0, 0, 0, 0))
    assert invoice.status == "paid"
    await world.collect()
    assert world.at_stripe(invoice) == []


@pytest.mark.parametrize("how", ["cut-before", "cut-after", "500-after", "429"])
async def test_whatever_request_goes_wrong_it_is_there_once(world, how):
    """Each of the requests in turn goes wrong, until all go through."""
    for number in range(20):
        invoice = await world.invoice()
        count = iter(range(1_000))
        world.stripe.misbehave(lambda _request, number=number, count=count: how if next(count) == number else None)
        await world.collect(tries=3)
        (there,) = world.at_stripe(invoice)
        assert there["total"] == invoice.total
        assert (await world.again(invoice)).stripe_id == there["id"]
        if next(count) <= number:
            break
    else:
        pytest.fail("there was no end of requests")
    assert number >= 6


async def test_two_collectors_at_once_make_one(world):
    invoice = await world.invoice()
    outcomes = await asyncio.gather(*(world.a_collector().step() for _ in range(4)), return_exceptions=True)
    assert all(isinstance(outcome, int | StripeUnavailable) for outcome in outcomes)
    await world.collect(tries=2)
    assert len(world.at_stripe(invoice)) == 1
    assert len(world.stripe.list_customers()["data"]) == 1


async def test_what_is_sent_again_two_days_later_is_there_once(world):
    """Stripe has forgotten the keys by then."""
    found = [await world.invoice() for _ in range(3)]
    await world.collect()
    for _ in range(3):
        for invoice in found:
            await world.forget_that_it_was_sent(invoice)
        world.clock.advance(2 * DAY)
        await world.collect()
    for invoice in found:
        (there,) = world.at_stripe(invoice)
        assert there["total"] == invoice.total


async def test_without_looking_first_it_would_be_there_twice(world, monkeypatch):
    async def nothing(*_arguments):
        return None

    invoice = await world.invoice()
    await world.collect()
    await world.forget_that_it_was_sent(invoice)
    world.clock.advance(2 * DAY)
    monkeypatch.setattr(Gateway, "_find", nothing)
    await world.collect()
    assert len(world.at_stripe(invoice)) == 2


async def test_a_failure_that_stripe_saved_is_waited_for(world):
    """A result stays under its key for a day, also that of a failure which did nothing."""
    invoice = await world.invoice()
    world.stripe.misbehave(lambda request: "500-after" if request.path == "/v1/invoices" and request.key else None)
    with pytest.raises(StripeUnavailable):
        await world.collector.step()
    world.stripe.misbehave(None)
    for draft in world.stripe.list_invoices(status="draft", limit=100)["data"]:
        world.stripe.delete_invoice(draft["id"])
    with pytest.raises(StripeUnavailable):
        await world.collector.step()
    world.clock.advance(DAY + 1)
    assert await world.collector.step() == 1
    assert len(world.at_stripe(invoice)) == 1


async def test_of_two_drafts_one_is_sent(world):
    """As where a process was killed after it had sent a request, and another began before that was carried out."""
    invoice = await world.invoice()
    customer = world.stripe.create_customer()["id"]
    metadata = {"kgents_invoice": invoice.invoice_id, "kgents_tenant": invoice.tenant_id}
    keep = partial(world.billing.keep_customer, tenant_id=invoice.tenant_id, customer_id=customer)
    await world.store.write(Scope.system(), keep)
    first, second = (
        world.stripe.create_invoice(customer=customer, currency="eur", metadata=metadata)["id"] for _ in range(2)
    )
    assert await world.collector.step() == 1
    (there,) = world.at_stripe(invoice)
    assert there["id"] == first
    assert world.stripe.retrieve_invoice(second)["status"] == "draft"


async def test_who_is_no_longer_a_customer_becomes_another(world):
    """Within the day for which Stripe knows the key that the first was made with."""
    invoice = await world.invoice()
    world.stripe.misbehave(lambda request: "cut-before" if request[:2] == ("POST", "/v1/invoices") else None)
    with pytest.raises(StripeUnavailable):
        await world.collector.step()
    world.stripe.misbehave(None)
    (customer,) = world.stripe.list_customers()["data"]
    world.stripe.delete_customer(customer["id"])
    assert await world.collector.step() == 1
    (there,) = world.at_stripe(invoice)
    (other,) = world.stripe.list_customers()["data"]
    assert there["customer"] == other["id"] != customer["id"]
    assert other["metadata"] == customer["metadata"]


async def test_a_customer_of_another_account_is_none(world):
    """As where kgents was tried with a key for tests."""
    invoice = await world.invoice()
    keep = partial(world.billing.keep_customer, tenant_id=invoice.tenant_id, customer_id="cus_of_a_test")
    await world.store.write(Scope.system(), keep)
    assert await world.collector.step() == 1
    (there,) = world.at_stripe(invoice)
    (customer,) = world.stripe.list_customers()["data"]
    assert there["customer"] == customer["id"]


async def test_what_a_deleted_customer_has_is_not_sent_to_another(world):
    invoice = await world.invoice()
    await world.collect()
    await world.forget_that_it_was_sent(invoice)
    (there,) = world.at_stripe(invoice)
    world.stripe.delete_customer(there["customer"])
    assert await world.collector.step() == 1
    assert len(world.at_stripe(invoice)) == 1
    assert world.stripe.list_customers()["data"] == []


@pytest.mark.parametrize("others", [[], ["void"], ["draft"]])
async def test_what_was_voided_at_stripe_is_not_made_again(world, others):
    invoice = await world.invoice()
    await world.collect()
    (there,) = world.at_stripe(invoice)
    world.stripe.void(there["id"])
    add_beside(world, there, *others)
    await world.forget_that_it_was_sent(invoice)
    count = len(world.stripe.invoices)
    assert await world.collector.step() == 1
    assert len(world.stripe.invoices) == count
    assert (await world.again(invoice)).status == "void"


async def test_where_two_are_asked_for_the_operator_decides(world):
    invoice = await world.invoice()
    await world.collect()
    (there,) = world.at_stripe(invoice)
    add_beside(world, there, "open")
    await world.forget_that_it_was_sent(invoice)
    assert await world.collector.step() == 0
    world.stripe.void(there["id"])
    world.clock.advance(AGAIN)
    assert await world.collector.step() == 1
    assert (await world.again(invoice)).stripe_id not in (None, there["id"])


def add_beside(world, there, *statuses):
    """Further invoices at Stripe that are the same one of ours."""
    for status in statuses:
        made = world.stripe.create_invoice(customer=there["customer"], currency="eur", metadata=there["metadata"])
        world.stripe.invoices[made["id"]]["status"] = status


async def test_a_draft_that_says_something_else_is_not_sent(world):
    invoice = await world.invoice()
    world.stripe.misbehave(lambda request: "cut-before" if request.path.endswith("/add_lines") else None)
    with pytest.raises(StripeUnavailable):
        await world.collector.step()
    world.stripe.misbehave(None)
    (draft,) = world.stripe.list_invoices(status="draft")["data"]
    world.stripe.add_lines(draft["id"], lines=[{"amount": 1}])

    assert await world.collector.step() == 0
    assert world.at_stripe(invoice) == []
    assert (await world.again(invoice)).stripe_id is None

    world.stripe.delete_invoice(draft["id"])
    world.clock.advance(DAY)
    assert await world.collector.step() == 1


async def test_what_is_not_what_the_ledger_says_is_not_sent(world):
    wrong, right = await world.invoice(), await world.invoice()
    await post_group(world.store, posting(wrong.tenant_id, START + SECOND, Amounts(1, 5, 0, 0)))
    assert await world.collector.step() == 1
    assert world.at_stripe(wrong) == []
    assert len(world.at_stripe(right)) == 1


async def test_what_stripe_refuses_holds_up_no_other_and_is_tried_again(world):
    refused = await world.invoice(replace(PRO, name="bad", currency="xxx"))
    other = await world.invoice()
    await world.collector.step()
    requests = len(world.stripe.requests)
    await world.collector.step()
    assert (len(world.at_stripe(refused)), len(world.at_stripe(other))) == (0, 1)
    assert len(world.stripe.requests) == requests
    world.clock.advance(AGAIN)
    await world.collector.step()
    assert len(world.stripe.requests) > requests


async def test_what_stripe_collects_is_not_marked_here(world):
    invoice = await world.invoice()
    await world.collect()
    with pytest.raises(Conflict, match="Mark it there"):
        await world.do("mark", invoice.tenant_id, invoice.invoice_id, "paid")


@settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    steps=st.lists(st.sampled_from(["pay", "void", "mark_uncollectible"]), min_size=1, max_size=3),
    order=st.integers(0, 2**32),
    cuts=st.lists(st.integers(0, 12), max_size=3),
)
async def test_events_in_any_order_come_to_what_stripe_has(store, steps, order, cuts):
    with FakeStripe(ManualClock(END)) as stripe:
        world = World(store, stripe, stripe.clock)
        invoice = await world.invoice()
        await world.collect()
        (there,) = world.at_stripe(invoice)
        for step in steps:
            with suppress(Refused):  # that can't become of it any more
                getattr(stripe, step)(there["id"])
        events = [event for event in stripe.events if event["data"]["object"]["id"] == there["id"]] * 3
        Random(order).shuffle(events)
        for place in sorted({*cuts, len(events)}):
            await world.told(events[:place])
            await world.inbox.step()
        now = stripe.retrieve_invoice(there["id"])["status"]
        assert (await world.again(invoice)).status == now
        assert (await store.read(Scope.system(), inbox.backlog)).count == 0
        await world.gateway.aclose()


async def test_an_event_before_the_answer_is_no_other_invoice(world):
    """Stripe tells of an invoice that was finalized before kgents has written that it is there."""
    invoice = await world.invoice()
    world.stripe.misbehave(lambda request: "cut-after" if request.path.endswith("/finalize") else None)
    with pytest.raises(StripeUnavailable):
        await world.collector.step()
    world.stripe.misbehave(None)
    await world.told(world.stripe.events)
    await world.inbox.step()
    (there,) = world.at_stripe(invoice)
    assert (await world.again(invoice)).stripe_id == there["id"]
    assert await world.collector.step() == 0


async def test_events_wait_while_stripe_is_away(world):
    invoice = await world.invoice()
    await world.collect()
    (there,) = world.at_stripe(invoice)
    world.stripe.pay(there["id"])
    await world.told(world.stripe.events)
    world.stripe.stop()
    with pytest.raises(StripeUnavailable):
        await world.inbox.step()
    world.stripe.start()
    await world.inbox.step()
    assert (await world.again(invoice)).status == "paid"


async def test_without_webhooks_it_is_looked_for(world):
    invoice = await world.invoice()
    await world.collect()
    (there,) = world.at_stripe(invoice)
    for change, status in (("mark_uncollectible", "uncollectible"), ("pay", "paid")):
        getattr(world.stripe, change)(there["id"])
        assert await world.collector.look() == 1
        assert (await world.again(invoice)).status == status
    assert await world.collector.look() == 0


async def test_an_invoice_that_kgents_did_not_make_is_left_alone(world):
    customer = world.stripe.create_customer()
    other = world.stripe.create_invoice(customer=customer["id"], currency="eur")
    world.stripe.finalize_invoice(other["id"])
    await world.told(world.stripe.events)
    assert await world.inbox.step() > 0
    assert (await world.store.read(Scope.system(), inbox.backlog)).count == 0


async def test_events_are_forgotten_after_ninety_days(world):
    invoice = await world.invoice()
    await world.collect()
    await world.told(world.stripe.events)
    await world.inbox.step()
    forget = partial(inbox.forget, now=world.clock.now() + inbox.KEPT)
    assert await world.store.write(Scope.system(), forget) == 0
    world.clock.advance(1)
    forget = partial(inbox.forget, now=world.clock.now() + inbox.KEPT)
    assert await world.store.write(Scope.system(), forget) == len(world.stripe.events)
    assert (await world.again(invoice)).stripe_id


async def test_a_comparison_names_what_stripe_has_otherwise(world):
    invoice = await world.invoice()
    assert [each.found for each in invoicing.at_stripe(invoice, None)] == ["not at Stripe"]
    await world.collect()
    kept = await world.again(invoice)
    held = await world.gateway.get(kept.stripe_id)
    assert invoicing.at_stripe(kept, held) == []
    world.stripe.void(kept.stripe_id)
    (difference,) = invoicing.at_stripe(kept, await world.gateway.get(kept.stripe_id))
    assert (difference.what, difference.invoiced, difference.found) == ("status", "open", "void")
    (difference,) = invoicing.at_stripe(kept, replace(held, total=held.total + 1))
    assert (difference.what, difference.found) == ("amount", invoice.total + 1)
