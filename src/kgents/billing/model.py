"""Plans, subscriptions and invoices, and their arithmetic. Money is whole minor units (cents) of a currency, quantities
are whole numbers: nothing here is a float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

InvoiceStatus = Literal["draft", "open", "paid", "uncollectible", "void"]
"""Stripe's states of an invoice (https://docs.stripe.com/invoicing/overview)."""

NEXT: Mapping[InvoiceStatus, frozenset[InvoiceStatus]] = {
    "draft": frozenset(),
    "open": frozenset({"paid", "uncollectible", "void"}),
    "uncollectible": frozenset({"paid", "void"}),
    "paid": frozenset(),
    "void": frozenset(),
}
"""What an invoice may become. A draft becomes `open` by itself, when its month is over."""

MAX_AMOUNT = 10**11  # minor units
MAX_PER = 10**9  # units of a meter
MAX_UNIT = 10**6  # minor units for each unit: 10**12 tokens of a month come to an amount of 64 bits
MAX_PRICES = 64


@dataclass(frozen=True, slots=True)
class Price:
    """What a meter costs: `amount` minor units for each `per` units, of one model or (None) of those that have no price
    of their own. The first `included` units of a subscription's month cost nothing.
    """

    meter: str
    model: str | None
    amount: int
    per: int
    included: int

    def charge(self, quantity: int) -> int:
        """What `quantity` units cost, in minor units. A half is rounded up, once for the whole quantity."""
        billable = max(0, quantity - self.included)
        return (2 * billable * self.amount + self.per) // (2 * self.per)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a plan says, and a subscription keeps: a fee a month, prices, and the quotas that come with it."""

    name: str
    currency: str
    monthly_fee: int
    prices: tuple[Price, ...]
    quotas: dict[str, int]

    def price_of(self, meter: str, model: str) -> Price | None:
        """The price of a meter's units of a model: its own, or that of the meter. None: they cost nothing."""
        found = {price.model: price for price in self.prices if price.meter == meter}
        return found.get(model) or found.get(None)


@dataclass(frozen=True, slots=True)
class Plan:
    """Terms that tenants may be subscribed to. They never change: another price is another plan."""

    plan_id: str
    terms: Terms
    created_at: int
    archived_at: int | None


@dataclass(frozen=True, slots=True)
class Subscription:
    """A tenant on a plan's terms from `started_at` until `ended_at`, or for as long as that is None."""

    subscription_id: str
    tenant_id: str
    plan_id: str
    terms: Terms
    started_at: int
    ended_at: int | None

    def within(self, start: int, end: int) -> tuple[int, int]:
        """The part of [start, end) for which it holds; empty (its start is its end) where it does not."""
        first = max(start, self.started_at)
        last = end if self.ended_at is None else min(end, self.ended_at)
        return first, max(first, last)


class Line(NamedTuple):
    """One line of an invoice: a plan's fee (no meter), or what a meter counted and costs, of one model where that has a
    price of its own. `amount` is in minor units; `start` and `end` are what it is for, in microseconds.
    """

    plan: str
    meter: str | None
    model: str | None
    quantity: int
    included: int
    unit_amount: int
    per: int
    amount: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Invoice:
    """A subscription's month. A draft has no id yet and goes on changing; any other is what it was when the month, or
    the subscription, was over, whatever happens to plans and prices.
    """

    invoice_id: str | None
    tenant_id: str
    subscription_id: str
    period: str
    currency: str
    status: InvoiceStatus
    lines: tuple[Line, ...]
    created_at: int
    updated_at: int
    stripe_id: str | None = None
    """Stripe's id of it, once Stripe collects it."""
    payment_url: str | None = None
    """Stripe's page on which it can be paid."""

    @property
    def total(self) -> int:
        """The sum of its lines, in minor units."""
        return sum(line.amount for line in self.lines)


class MonthRevenue(NamedTuple):
    """What the invoices of a month, in one currency and of one status, come to, in minor units."""

    period: str
    currency: str
    status: InvoiceStatus
    invoices: int
    amount: int


@dataclass(frozen=True, slots=True)
class Held:
    """An invoice as Stripe has it. `tenant_id` and `invoice_id` are what it was given; empty where kgents did not make
    it.
    """

    stripe_id: str
    tenant_id: str
    invoice_id: str
    status: InvoiceStatus
    total: int
    currency: str
    url: str | None
    empty: bool
    """Whether it has no lines."""


def fee_of(terms: Terms, start: int, end: int, month: tuple[int, int]) -> int:
    """The part of the monthly fee that is for [start, end) of a month, by time; a half is rounded up."""
    length = month[1] - month[0]
    return (2 * terms.monthly_fee * (end - start) + length) // (2 * length)
