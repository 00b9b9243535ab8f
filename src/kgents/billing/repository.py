"""SQL of plans, subscriptions and invoices."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping

from kgents.billing.model import Invoice, InvoiceStatus, Line, MonthRevenue, Plan, Price, Subscription, Terms
from kgents.store.outbox import Backlog
from kgents.store.tables import invoices, plans, stripe_customers, subscriptions
from kgents.store.upsert import insert
from kgents.tenants.model import PLATFORM


def _dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


def _terms(text: str) -> Terms:
    found = orjson.loads(text)
    return Terms(**{**found, "prices": tuple(Price(**price) for price in found["prices"])})


def insert_plan(connection: Connection, plan: Plan) -> bool:
    """Insert a plan; False where one of its name is offered already."""
    row = {
        "plan_id": plan.plan_id,
        "tenant_id": PLATFORM,
        "name": plan.terms.name,
        "terms": _dumps(asdict(plan.terms)),
        "created_at": plan.created_at,
    }
    statement = insert(connection, plans).values(row).on_conflict_do_nothing()
    return connection.execute(statement.returning(plans.c.plan_id)).first() is not None


def plan_by_id(connection: Connection, plan_id: str) -> Plan | None:
    """The plan of this id, archived or not."""
    statement = sa.select(plans).where(plans.c.tenant_id == PLATFORM, plans.c.plan_id == plan_id)
    row = connection.execute(statement).mappings().first()
    return None if row is None else _plan(row)


def list_plans(connection: Connection, after: str, limit: int) -> list[Plan]:
    """Plans in the order of their ids, after the given one."""
    statement = sa.select(plans).where(plans.c.tenant_id == PLATFORM, plans.c.plan_id > after)
    return [_plan(row) for row in connection.execute(statement.order_by(plans.c.plan_id).limit(limit)).mappings()]


def archive_plan(connection: Connection, plan_id: str, now: int) -> None:
    """Write that a plan is not offered any more."""
    connection.execute(
        sa.update(plans)
        .where(plans.c.tenant_id == PLATFORM, plans.c.plan_id == plan_id, plans.c.archived_at.is_(None))
        .values(archived_at=now)
    )


def _plan(row: RowMapping) -> Plan:
    return Plan(row["plan_id"], _terms(row["terms"]), row["created_at"], row["archived_at"])


def insert_subscription(connection: Connection, subscription: Subscription) -> None:
    """Insert a subscription. A second one that is open is an IntegrityError."""
    connection.execute(sa.insert(subscriptions), {**asdict(subscription), "terms": _dumps(asdict(subscription.terms))})


def end_subscription(connection: Connection, tenant_id: str, now: int) -> int:
    """End the tenant's subscription, if it has one; answers how many were ended."""
    mine = (subscriptions.c.tenant_id == tenant_id, subscriptions.c.ended_at.is_(None))
    return connection.execute(sa.update(subscriptions).where(*mine).values(ended_at=now)).rowcount


def open_subscription(connection: Connection, tenant_id: str) -> Subscription | None:
    """The tenant's subscription, if it has one now."""
    mine = (subscriptions.c.tenant_id == tenant_id, subscriptions.c.ended_at.is_(None))
    row = connection.execute(sa.select(subscriptions).where(*mine)).mappings().first()
    return None if row is None else _subscription(row)


def open_subscriptions(connection: Connection, after: str, limit: int) -> list[Subscription]:
    """The subscriptions that tenants have now (in a transaction over all), in the order of the tenants' ids, after the
    given one.
    """
    statement = sa.select(subscriptions).where(subscriptions.c.ended_at.is_(None), subscriptions.c.tenant_id > after)
    rows = connection.execute(statement.order_by(subscriptions.c.tenant_id).limit(limit))
    return [_subscription(row) for row in rows.mappings()]


def subscription_by_id(connection: Connection, tenant_id: str, subscription_id: str) -> Subscription | None:
    """The tenant's subscription of this id, ended or not."""
    mine = (subscriptions.c.tenant_id == tenant_id, subscriptions.c.subscription_id == subscription_id)
    row = connection.execute(sa.select(subscriptions).where(*mine)).mappings().first()
    return None if row is None else _subscription(row)


def _subscription(row: RowMapping) -> Subscription:
    return Subscription(**{**row, "terms": _terms(row["terms"])})


def first_start(connection: Connection) -> int | None:
    """When the first subscription of all tenants began."""
    found: int | None = connection.execute(sa.select(sa.func.min(subscriptions.c.started_at))).scalar_one()
    return found


def without_invoice(
    connection: Connection, period: str, start: int, end: int, ended_by: int | None, after: str, limit: int
) -> list[Subscription]:
    """Subscriptions (in a transaction over all tenants) that held in the month [start, end) and have no invoice of it;
    only those that have ended by a moment, if one is given. In the order of their ids, after the given one.
    """
    columns = subscriptions.c
    held = columns.started_at < end, sa.or_(columns.ended_at.is_(None), columns.ended_at > start)
    has = sa.exists().where(invoices.c.subscription_id == columns.subscription_id, invoices.c.period == period)
    statement = sa.select(subscriptions).where(*held, ~has, columns.subscription_id > after)
    if ended_by is not None:
        statement = statement.where(columns.ended_at <= ended_by)
    rows = connection.execute(statement.order_by(columns.subscription_id).limit(limit))
    return [_subscription(row) for row in rows.mappings()]


def insert_invoice(connection: Connection, invoice: Invoice) -> bool:
    """Insert an invoice; False where there is one of its subscription and month."""
    row = {
        "invoice_id": invoice.invoice_id,
        "tenant_id": invoice.tenant_id,
        "subscription_id": invoice.subscription_id,
        "period": invoice.period,
        "currency": invoice.currency,
        "status": invoice.status,
        "lines": _dumps([line._asdict() for line in invoice.lines]),
        "total": invoice.total,
        "created_at": invoice.created_at,
        "updated_at": invoice.updated_at,
    }
    statement = insert(connection, invoices).values(row).on_conflict_do_nothing()
    return connection.execute(statement.returning(invoices.c.invoice_id)).first() is not None


def invoice_by_id(connection: Connection, tenant_id: str, invoice_id: str, *, lock: bool = False) -> Invoice | None:
    """The tenant's invoice of this id; `lock` holds its row to the end of the transaction."""
    mine = (invoices.c.tenant_id == tenant_id, invoices.c.invoice_id == invoice_id)
    statement = sa.select(invoices).where(*mine)
    row = connection.execute(statement.with_for_update() if lock else statement).mappings().first()
    return None if row is None else _invoice(row)


def list_invoices(connection: Connection, tenant_id: str, after: str, limit: int) -> list[Invoice]:
    """The tenant's invoices, newest first, those before the given one."""
    statement = sa.select(invoices).where(invoices.c.tenant_id == tenant_id)
    if after:
        statement = statement.where(invoices.c.invoice_id < after)
    rows = connection.execute(statement.order_by(invoices.c.invoice_id.desc()).limit(limit))
    return [_invoice(row) for row in rows.mappings()]


def invoices_of(connection: Connection, period: str, after: str, limit: int) -> list[Invoice]:
    """A month's invoices of all tenants (in a transaction over all), in the order of their ids, after the given one."""
    statement = sa.select(invoices).where(invoices.c.period == period, invoices.c.invoice_id > after)
    rows = connection.execute(statement.order_by(invoices.c.invoice_id).limit(limit))
    return [_invoice(row) for row in rows.mappings()]


def revenue(connection: Connection, first: str, last: str) -> list[MonthRevenue]:
    """What the invoices of all tenants (in a transaction over all) come to, for each month from `first` to `last`,
    currency and status, in that order.
    """
    columns = invoices.c
    of = (columns.period, columns.currency, columns.status)
    total = sa.cast(sa.func.sum(columns.total), sa.BigInteger)
    statement = sa.select(*of, sa.func.count(), total).where(columns.period.between(first, last))
    return [MonthRevenue(*row) for row in connection.execute(statement.group_by(*of).order_by(*of))]


def payable(connection: Connection, collected: bool, after: str, limit: int) -> list[Invoice]:
    """Invoices that may be paid still (in a transaction over all tenants) and that Stripe has, or does not have, in the
    order of their ids, after the given one.
    """
    statement = sa.select(invoices).where(invoices.c.invoice_id > after)
    if collected:
        statement = statement.where(invoices.c.stripe_id.is_not(None), invoices.c.status.in_(("open", "uncollectible")))
    else:  # in the index's own words: sqlalchemy would send the status as a parameter
        statement = statement.where(invoices.c.stripe_id.is_(None), sa.text("status = 'open'"))
    rows = connection.execute(statement.order_by(invoices.c.invoice_id).limit(limit))
    return [_invoice(row) for row in rows.mappings()]


def uncollected(connection: Connection) -> Backlog:
    """The open invoices (in a transaction over all tenants) that Stripe does not have yet, and when they were made."""
    statement = sa.select(sa.func.count(), sa.func.min(invoices.c.created_at))
    return Backlog(
        *connection.execute(statement.where(sa.text("status = 'open'"), invoices.c.stripe_id.is_(None))).one()
    )


def set_collected(connection: Connection, tenant_id: str, invoice_id: str, stripe_id: str, url: str | None) -> None:
    """Write that Stripe has an invoice."""
    connection.execute(
        sa.update(invoices)
        .where(invoices.c.tenant_id == tenant_id, invoices.c.invoice_id == invoice_id)
        .values(stripe_id=stripe_id, payment_url=url)
    )


def customer_of(connection: Connection, tenant_id: str) -> str | None:
    """Stripe's id of a tenant, if it is known."""
    statement = sa.select(stripe_customers.c.customer_id).where(stripe_customers.c.tenant_id == tenant_id)
    found: str | None = connection.execute(statement).scalar_one_or_none()
    return found


def keep_customer(connection: Connection, tenant_id: str, customer_id: str, now: int) -> None:
    """Keep Stripe's id of a tenant; the first one stays."""
    row = {"tenant_id": tenant_id, "customer_id": customer_id, "created_at": now}
    connection.execute(insert(connection, stripe_customers).values(row).on_conflict_do_nothing())


def forget_customer(connection: Connection, tenant_id: str, customer_id: str) -> None:
    """Forget this id of a tenant; another one stays."""
    mine = sa.and_(stripe_customers.c.tenant_id == tenant_id, stripe_customers.c.customer_id == customer_id)
    connection.execute(sa.delete(stripe_customers).where(mine))


def set_status(connection: Connection, tenant_id: str, invoice_id: str, status: InvoiceStatus, now: int) -> None:
    """Write what became of an invoice."""
    connection.execute(
        sa.update(invoices)
        .where(invoices.c.tenant_id == tenant_id, invoices.c.invoice_id == invoice_id)
        .values(status=status, updated_at=now)
    )


def _invoice(row: RowMapping) -> Invoice:
    kept = {name: value for name, value in row.items() if name != "total"}
    return Invoice(**{**kept, "lines": tuple(Line(**line) for line in orjson.loads(row["lines"]))})
