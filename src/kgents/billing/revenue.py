"""What today has come to, in minor units: for who watches, not for who pays."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from kgents.billing import repository
from kgents.billing.model import Terms, fee_of
from kgents.clock import month_bounds, month_of
from kgents.store.tables import usage_hours
from kgents.usage.model import METERS, Amounts
from kgents.usage.sums import DAY

PAGE = 500  # tenants


class Revenue(NamedTuple):
    """What a tenant's day has come to so far."""

    tenant_id: str
    currency: str
    amount: int


def today(connection: Connection, now: int, after: str, limit: int = PAGE) -> list[Revenue]:
    """Tenants with a subscription (in a transaction over all), in the order of their ids, after the given one: the
    part of their fee that is for today until `now`, and what they used today at their prices.

    What is included counts as paid for by the fee only in the invoice, where the month's sum is known: here it counts
    at its price. A plan that was changed today counts as if it had been the new one all day.
    """
    midnight, month = now - now % DAY, month_bounds(month_of(now))
    found = repository.open_subscriptions(connection, after, limit)
    used = _used(connection, [each.tenant_id for each in found], midnight)
    return [
        Revenue(
            each.tenant_id,
            each.terms.currency,
            fee_of(each.terms, max(midnight, min(each.started_at, now)), now, month)
            + sum(_price(each.terms, model, amounts) for model, amounts in used.get(each.tenant_id, ())),
        )
        for each in found
    ]


def _price(terms: Terms, model: str, amounts: Amounts) -> int:
    prices = [(terms.price_of(meter, model), quantity) for meter, quantity in zip(METERS, amounts, strict=True)]
    return sum(price.charge(quantity + price.included) for price, quantity in prices if price and quantity)


def _used(connection: Connection, tenants: list[str], start: int) -> dict[str, list[tuple[str, Amounts]]]:
    columns = usage_hours.c
    statement = (
        sa.select(
            columns.tenant_id,
            columns.model,
            *(sa.cast(sa.func.sum(columns[meter]), sa.BigInteger) for meter in METERS),
        )
        .where(columns.tenant_id.in_(tenants), columns.hour >= start)
        .group_by(columns.tenant_id, columns.model)
    )
    found: dict[str, list[tuple[str, Amounts]]] = {}
    for tenant_id, model, *amounts in connection.execute(statement):
        found.setdefault(tenant_id, []).append((model, Amounts(*amounts)))
    return found
