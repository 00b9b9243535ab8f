"""From the ledger to an invoice: what a tenant's month costs, and whether an invoice says what the ledger says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from kgents.billing import repository
from kgents.billing.model import Held, Invoice, InvoiceStatus, Line, Price, Subscription, fee_of
from kgents.clock import month_bounds, month_of
from kgents.errors import Unprocessable
from kgents.ids import new_id
from kgents.usage import sums
from kgents.usage.model import METERS, NOTHING, Amounts

MOST_MODELS = 100_000  # a tenant may have made up their names
_EVER = sums.HOUR << 30  # longer than all that was ever counted, so that a sum has one piece


def used(connection: Connection, tenant_id: str, start: int, end: int) -> dict[str, Amounts]:
    """What the tenant's ledger has in [start, end), by model. Raises Unprocessable for too many models to read."""
    found: dict[str, dict[str, int]] = {}
    rows = sums.kept(
        connection,
        tenant_id,
        start=start,
        end=end,
        length=_EVER,
        meters=METERS,
        groups=("model",),
        limit=MOST_MODELS + 1,
    )
    for row in rows:
        found.setdefault(row.model or "", {})[row.meter] = row.quantity
    if len(found) > MOST_MODELS:
        raise Unprocessable(f"The tenant {tenant_id} used more than {MOST_MODELS} models in a month.")
    return {model: Amounts(**amounts) for model, amounts in sorted(found.items())}


def lines_of(
    subscription: Subscription, usage: Mapping[str, Amounts], start: int, end: int, month: tuple[int, int]
) -> list[Line]:
    """The lines of a subscription for [start, end) of a month, given what each model used in it.

    Models without a price of their own share a line for each meter, and what is included in it. What costs nothing has
    a line, too, so that the sum over all lines is what the ledger counted.
    """
    terms, name = subscription.terms, subscription.terms.name
    fee = fee_of(terms, start, end, month)
    lines = [Line(name, None, None, 1, 0, terms.monthly_fee, 1, fee, start, end)] if terms.monthly_fee else []
    for place, meter in enumerate(METERS):
        by_model: dict[str | None, int] = {}
        for model, amounts in usage.items():
            price = terms.price_of(meter, model)
            own = price.model if price else None
            by_model[own] = by_model.get(own, 0) + amounts[place]
        for own, quantity in sorted(by_model.items(), key=lambda item: item[0] or ""):
            if quantity:
                price = terms.price_of(meter, own or "") or Price(meter, None, 0, 1, 0)
                amount = price.charge(quantity)
                lines.append(
                    Line(name, meter, own, quantity, price.included, price.amount, price.per, amount, start, end)
                )
    return lines


def draft(connection: Connection, subscription: Subscription, period: str, *, until: int) -> Invoice:
    """What a subscription's month comes to, up to the moment `until` or as a whole."""
    month = month_bounds(period)
    start, end = subscription.within(month[0], min(until, month[1]))
    lines = lines_of(subscription, used(connection, subscription.tenant_id, start, end), start, end, month)
    currency = subscription.terms.currency
    return Invoice(
        None, subscription.tenant_id, subscription.subscription_id, period, currency, "draft", tuple(lines), end, end
    )


def close(connection: Connection, subscription: Subscription, period: str, now: int) -> Invoice | None:
    """Make the invoice of a subscription's month that is over; None where it is there already."""
    found = draft(connection, subscription, period, until=month_bounds(period)[1])
    status: InvoiceStatus = "open" if found.total else "paid"
    invoice = replace(found, invoice_id=new_id("inv"), status=status, created_at=now, updated_at=now)
    return invoice if repository.insert_invoice(connection, invoice) else None


def months(connection: Connection, now: int) -> list[str]:
    """The months, oldest first, from the first in which any tenant (in a transaction over all) was subscribed."""
    first = repository.first_start(connection)
    if first is None:
        return []
    found = [month_of(first)]
    while month_bounds(found[-1])[1] <= now:
        found.append(month_of(month_bounds(found[-1])[1]))
    return found


def due(connection: Connection, period: str, before: int, after: str, limit: int) -> list[Subscription]:
    """Subscriptions (in a transaction over all tenants) whose part of a month was over at the moment `before`, and has
    no invoice; in the order of their ids, after the given one.
    """
    start, end = month_bounds(period)
    return repository.without_invoice(connection, period, start, end, None if end <= before else before, after, limit)


def of_month(connection: Connection, period: str, after: str, limit: int) -> list[Invoice]:
    """A month's invoices of all tenants (in a transaction over all), in the order of their ids, after the given one."""
    return repository.invoices_of(connection, period, after, limit)


@dataclass(frozen=True, slots=True)
class Difference:
    """Where an invoice says something else than what it is compared with: the units of a meter, its `amount` in minor
    units, or at Stripe its `currency` and `status`.
    """

    tenant_id: str
    invoice_id: str
    what: str
    invoiced: int | str
    found: int | str


def quantities(invoice: Invoice) -> Amounts:
    """What an invoice charges, or names as free, of each meter."""
    found = dict.fromkeys(METERS, 0)
    for line in invoice.lines:
        if line.meter is not None:
            found[line.meter] += line.quantity
    return Amounts(**found)


def differences(connection: Connection, invoice: Invoice) -> list[Difference]:
    """Where an invoice says something else than the ledger's events, each of which is read, and where its lines don't
    add up (meter `amount`, in minor units).
    """
    subscription = repository.subscription_by_id(connection, invoice.tenant_id, invoice.subscription_id)
    assert subscription is not None, "an invoice has a subscription"
    month = month_bounds(invoice.period)
    start, end = subscription.within(*month)
    counted: Counter[str] = Counter()
    for row in sums.counted(connection, invoice.tenant_id, start=start, end=end, length=sums.DAY):
        counted[row.meter] += row.quantity
    amount = sum(line.amount for line in lines_of(subscription, _named(invoice), start, end, month))
    found = [
        Difference(invoice.tenant_id, invoice.invoice_id or "", meter, quantity, counted[meter])
        for meter, quantity in zip(METERS, quantities(invoice), strict=True)
        if quantity != counted[meter]
    ]
    if amount != invoice.total:
        found.append(Difference(invoice.tenant_id, invoice.invoice_id or "", "amount", invoice.total, amount))
    return found


def at_stripe(invoice: Invoice, held: Held | None) -> list[Difference]:
    """Where Stripe has an invoice as something else, or does not have it, given what it has of it."""
    ours: dict[str, int | str] = {"amount": invoice.total, "currency": invoice.currency, "status": invoice.status}
    if held is not None:
        theirs: dict[str, int | str] = {"amount": held.total, "currency": held.currency, "status": held.status}
    elif invoice.status == "open" or invoice.stripe_id:
        theirs = ours | {"status": "not at Stripe"}
    else:
        theirs = ours
    return [
        Difference(invoice.tenant_id, invoice.invoice_id or "", what, ours[what], theirs[what])
        for what in ours
        if ours[what] != theirs[what]
    ]


def _named(invoice: Invoice) -> dict[str, Amounts]:
    """The quantities that an invoice names, by the model that has a price of its own ("": all others)."""
    usage: dict[str, Amounts] = {}
    for line in invoice.lines:
        if line.meter is not None:
            amounts = usage.get(line.model or "", NOTHING)
            usage[line.model or ""] = amounts.plus(Amounts(**{line.meter: line.quantity}))
    return usage
