"""kgents' own requests to Stripe, against the fake, and against Stripe's stripe-mock with its OpenAPI document."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from stripe import StripeClient

from kgents.billing.gateway import Gateway, StripeUnavailable
from kgents.billing.model import Invoice, Line
from kgents.clock import month_bounds
from kgents.errors import Unprocessable
from kgents.ids import new_id
from tests.support import stripe_mock as mock
from tests.support.stripe import FakeStripe

START, END = month_bounds("2026-10")


@asynccontextmanager
async def gateway(key: str, url: str) -> AsyncIterator[Gateway]:
    made = Gateway(key, url)
    try:
        yield made
    finally:
        await made.aclose()


def invoice(*amounts: int, currency: str = "eur") -> Invoice:
    lines = tuple(
        Line("pro", "input_tokens", "openai:large", 1_000, 5, 300, 1_000, amount, START, END) for amount in amounts
    )
    return Invoice(new_id("inv"), new_id("ten"), new_id("sub"), "2026-10", currency, "open", lines, END, END)


async def test_stripe_takes_every_request_of_ours(
    stripe_mock: str, connect: Callable[[str, str], StripeClient]
) -> None:
    """It remembers nothing: the invoice is one of the amount that it always answers."""
    always = connect(stripe_mock, mock.API_KEY).v1.invoices.retrieve("in_1")
    asked = invoice(always.total, currency=always.currency)
    async with gateway(mock.API_KEY, stripe_mock) as stripe:
        await stripe.ping()
        customer = await stripe.customer(asked.tenant_id, "A tenant")
        held = await stripe.collect(asked, customer)
        assert (held.total, held.currency) == (asked.total, asked.currency)
        assert await stripe.get(held.stripe_id) is not None


async def test_an_invoice_is_collected_with_its_lines(fake: FakeStripe) -> None:
    asked = invoice(300, 0, 7)
    async with gateway(fake.api_key, fake.url) as stripe:
        customer = await stripe.customer(asked.tenant_id, None)
        assert await stripe.customer(asked.tenant_id, "another name") == customer
        held = await stripe.collect(asked, customer)
        assert (held.status, held.total, held.tenant_id, held.invoice_id) == (
            *("open", 307),
            asked.tenant_id,
            asked.invoice_id,
        )
        assert held.url
        assert await stripe.collect(asked, customer) == held
        assert await stripe.get(held.stripe_id) == held
        assert await stripe.get("in_none") is None


@pytest.mark.parametrize(
    ("chosen", "how"),
    [
        ({}, "charge_automatically"),
        ({"email": "billing@tenant.example"}, "send_invoice"),
        (
            {"email": "billing@tenant.example", "invoice_settings": {"default_payment_method": "pm_1"}},
            "charge_automatically",
        ),
        ({"email": "billing@tenant.example", "default_source": "card_1"}, "charge_automatically"),
    ],
)
async def test_who_has_chosen_how_to_pay_is_charged_and_others_are_written_to(
    fake: FakeStripe, chosen: dict[str, object], how: str
) -> None:
    asked = invoice(300)
    async with gateway(fake.api_key, fake.url) as stripe:
        customer = await stripe.customer(asked.tenant_id, None)
        fake.customers[customer].update(chosen)
        held = await stripe.collect(asked, customer)
    assert fake.invoices[held.stripe_id]["collection_method"] == how


async def test_a_wrong_key_is_named_and_not_told(fake: FakeStripe) -> None:
    async with gateway("sk_test_of_somebody_else_entirely", fake.url) as stripe:
        with pytest.raises(StripeUnavailable, match="401") as raised:
            await stripe.ping()
    assert "entirely" not in raised.value.detail


async def test_an_invoice_of_a_hundred_pages_ago_is_found(fake: FakeStripe) -> None:
    asked = invoice(300)
    async with gateway(fake.api_key, fake.url) as stripe:
        customer = await stripe.customer(asked.tenant_id, None)
        held = await stripe.collect(asked, customer)
        for _ in range(205):
            fake.create_invoice(customer=customer, currency="eur")
        assert await stripe.collect(asked, customer) == held


@pytest.mark.parametrize("url", ["", "stripe", "ftp://127.0.0.1", "http://"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(Unprocessable, match="KGENTS_STRIPE_URL"):
        Gateway("sk_test_1", url)
