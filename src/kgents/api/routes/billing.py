"""Subscriptions and invoices: a tenant's own, and everybody's for platform administrators."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from kgents.api.body import Body
from kgents.api.call import Call, PlatformAdmin, UsageRead
from kgents.api.json_route import JsonRoute
from kgents.api.paging import Cursor, Limit, Page
from kgents.api.problems import PROBLEMS
from kgents.api.routes.plans import PriceDocument, shown
from kgents.api.routes.tenants import TenantId
from kgents.api.unit import read, write
from kgents.billing.model import Invoice, Line, Subscription
from kgents.clock import month_of, to_rfc3339
from kgents.errors import Unprocessable
from kgents.store.engine import Scope

router = APIRouter(tags=["Billing"], route_class=JsonRoute)

MOST_YEARS = 10
_MONTH = r"^$|^(19|2\d)\d\d-(0[1-9]|1[0-2])$"
FirstMonth = Annotated[
    str, Query(alias="from", pattern=_MONTH, description="A month, such as 2026-01; a year before the last by default.")
]
LastMonth = Annotated[str, Query(alias="to", pattern=_MONTH, description="A month; this one by default.")]
InvoiceId = Annotated[str, Path(max_length=64, description="The invoice's id.")]


class SubscriptionRequest(Body):
    """The plan that a tenant is to be on."""

    plan: str


class SubscriptionDocument(BaseModel):
    """A tenant's plan, with its terms as they were taken."""

    object: Literal["subscription"] = "subscription"
    id: str
    tenant: str
    plan: str
    name: str
    currency: str
    monthly_fee: int
    prices: list[PriceDocument]
    quotas: dict[str, int]
    started_at: str
    ended_at: str | None


class LineDocument(BaseModel):
    """A line of an invoice: a plan's fee (its meter is null), or what a meter counted and what that costs.

    `amount` is `unit_amount` for each `per` of `quantity` beyond `included`, a half rounded up; of a fee, the part
    that is for the time from `start` to `end`.
    """

    plan: str
    meter: str | None
    model: str | None
    quantity: int
    included: int
    unit_amount: int
    per: int
    amount: int
    start: str
    end: str


class InvoiceDocument(BaseModel):
    """A subscription's month (UTC), or its part of one. Amounts are whole minor units of the currency. A draft has no
    id: its month goes on. One that Stripe collects has `stripe_id`, and can be paid at `payment_url`.
    """

    object: Literal["invoice"] = "invoice"
    id: str | None
    tenant: str
    subscription: str
    period: str
    currency: str
    status: Literal["draft", "open", "paid", "uncollectible", "void"]
    total: int
    lines: list[LineDocument]
    created_at: str
    updated_at: str
    stripe_id: str | None
    payment_url: str | None


class RevenueRow(BaseModel):
    """What a month's invoices of one currency and status come to, in minor units."""

    period: str
    currency: str
    status: Literal["open", "paid", "uncollectible", "void"]
    invoices: int
    amount: int


class RevenueReport(BaseModel):
    """What all tenants' invoices come to, by month, currency and status."""

    model_config = ConfigDict(populate_by_name=True)

    object: Literal["revenue"] = "revenue"
    from_: Annotated[str, Field(alias="from")]
    to: str
    data: list[RevenueRow]


class InvoiceChange(Body):
    """What became of an invoice."""

    status: Literal["paid", "uncollectible", "void"]


def _subscription(found: Subscription) -> SubscriptionDocument:
    return SubscriptionDocument(
        id=found.subscription_id,
        tenant=found.tenant_id,
        plan=found.plan_id,
        **shown(found.terms),
        started_at=to_rfc3339(found.started_at),
        ended_at=None if found.ended_at is None else to_rfc3339(found.ended_at),
    )


def _line(line: Line) -> LineDocument:
    return LineDocument(**{**line._asdict(), "start": to_rfc3339(line.start), "end": to_rfc3339(line.end)})


def _invoice(found: Invoice) -> InvoiceDocument:
    return InvoiceDocument(
        id=found.invoice_id,
        tenant=found.tenant_id,
        subscription=found.subscription_id,
        period=found.period,
        currency=found.currency,
        status=found.status,
        total=found.total,
        lines=[_line(line) for line in found.lines],
        created_at=to_rfc3339(found.created_at),
        updated_at=to_rfc3339(found.updated_at),
        stripe_id=found.stripe_id,
        payment_url=found.payment_url,
    )


async def _invoices(call: Call, tenant_id: str, after: str, limit: int, scope: Scope) -> Page[InvoiceDocument]:
    found = await read(
        call,
        lambda connection: call.services.billing.invoices(connection, tenant_id, after=after, limit=limit),
        scope,
    )
    return Page.of([_invoice(each) for each in found.items], has_more=found.has_more)


@router.get(
    "/v1/subscription",
    operation_id="get_own_subscription",
    summary="Get the calling tenant's subscription",
    response_model=SubscriptionDocument,
    responses=PROBLEMS,
)
async def get_own_subscription(call: UsageRead) -> SubscriptionDocument:
    """What the tenant that the key belongs to is subscribed to, and its prices."""
    services = call.services.billing
    return _subscription(await read(call, lambda connection: services.subscription(connection, call.tenant_id)))


@router.get(
    "/v1/invoices",
    operation_id="list_invoices",
    summary="List invoices",
    response_model=Page[InvoiceDocument],
    responses=PROBLEMS,
)
async def list_invoices(call: UsageRead, limit: Limit = 20, after: Cursor = "") -> Page[InvoiceDocument]:
    """The tenant's invoices, newest first. One is made an hour after its month, or the subscription, was over."""
    return await _invoices(call, call.tenant_id, after, limit, Scope.tenant(call.tenant_id))


@router.get(
    "/v1/invoices/upcoming",
    operation_id="get_upcoming_invoice",
    summary="Get the invoice to come",
    response_model=InvoiceDocument,
    responses=PROBLEMS,
)
async def get_upcoming_invoice(call: UsageRead) -> InvoiceDocument:
    """What this month comes to so far, exactly as the ledger has it now."""
    services = call.services.billing
    return _invoice(await read(call, lambda connection: services.upcoming(connection, call.tenant_id)))


@router.get(
    "/v1/invoices/{invoice_id}",
    operation_id="get_invoice",
    summary="Get an invoice",
    response_model=InvoiceDocument,
    responses=PROBLEMS,
)
async def get_invoice(call: UsageRead, invoice_id: InvoiceId) -> InvoiceDocument:
    """An invoice."""
    services = call.services.billing
    return _invoice(await read(call, lambda connection: services.invoice(connection, call.tenant_id, invoice_id)))


@router.get(
    "/v1/revenue",
    operation_id="get_revenue",
    summary="Get revenue",
    response_model=RevenueReport,
    responses=PROBLEMS,
)
async def get_revenue(call: PlatformAdmin, first: FirstMonth = "", last: LastMonth = "") -> RevenueReport:
    """What all tenants' invoices come to, for each month that has any. The month that goes on has those of
    subscriptions that have ended.
    """
    last = last or month_of(call.now())
    first = first or f"{int(last[:4]) - 1}{last[4:]}"
    if first > last:
        raise Unprocessable("from must not be after to.", param="from")
    if int(last[:4]) - int(first[:4]) > MOST_YEARS:
        raise Unprocessable(f"from and to may be {MOST_YEARS} years apart at most.", param="from")
    rows = await read(call, lambda connection: call.services.billing.revenue(connection, first, last), Scope.system())
    return RevenueReport(from_=first, to=last, data=[RevenueRow(**row._asdict()) for row in rows])


@router.get(
    "/v1/tenants/{tenant_id}/subscription",
    operation_id="get_subscription",
    summary="Get a tenant's subscription",
    response_model=SubscriptionDocument,
    responses=PROBLEMS,
)
async def get_subscription(call: PlatformAdmin, tenant_id: TenantId) -> SubscriptionDocument:
    """What a tenant is subscribed to."""
    services = call.services.billing
    return _subscription(
        await read(call, lambda connection: services.subscription(connection, tenant_id), Scope.system())
    )


@router.put(
    "/v1/tenants/{tenant_id}/subscription",
    operation_id="set_subscription",
    summary="Subscribe a tenant to a plan",
    response_model=SubscriptionDocument,
    responses=PROBLEMS,
)
async def set_subscription(call: PlatformAdmin, tenant_id: TenantId, body: SubscriptionRequest) -> Response:
    """Put a tenant on a plan from now on. The plan's quotas take the place of the tenant's; a plan that it was on ends,
    and each is charged for its part of the month.
    """
    return await write(
        call,
        lambda connection: call.services.billing.subscribe(connection, tenant_id, body.plan, call.actor),
        _subscription,
        scope=Scope.system(),
    )


@router.delete(
    "/v1/tenants/{tenant_id}/subscription",
    operation_id="end_subscription",
    summary="End a tenant's subscription",
    response_model=SubscriptionDocument,
    responses=PROBLEMS,
)
async def end_subscription(call: PlatformAdmin, tenant_id: TenantId) -> Response:
    """End a tenant's subscription now. Its quotas are 0 from then on: what nobody pays for is refused."""
    return await write(
        call,
        lambda connection: call.services.billing.unsubscribe(connection, tenant_id, call.actor),
        _subscription,
        scope=Scope.system(),
    )


@router.get(
    "/v1/tenants/{tenant_id}/invoices",
    operation_id="list_tenant_invoices",
    summary="List a tenant's invoices",
    response_model=Page[InvoiceDocument],
    responses=PROBLEMS,
)
async def list_tenant_invoices(
    call: PlatformAdmin, tenant_id: TenantId, limit: Limit = 20, after: Cursor = ""
) -> Page[InvoiceDocument]:
    """A tenant's invoices, newest first; also those of one that was erased."""
    return await _invoices(call, tenant_id, after, limit, Scope.system())


@router.patch(
    "/v1/tenants/{tenant_id}/invoices/{invoice_id}",
    operation_id="update_invoice",
    summary="Mark a tenant's invoice",
    response_model=InvoiceDocument,
    responses=PROBLEMS,
)
async def update_invoice(
    call: PlatformAdmin, tenant_id: TenantId, invoice_id: InvoiceId, body: InvoiceChange
) -> Response:
    """Write that an invoice was paid, can't be collected, or is void. Its usage and amounts never change. What Stripe
    collects is marked there.
    """
    return await write(
        call,
        lambda connection: call.services.billing.mark(connection, tenant_id, invoice_id, body.status, call.actor),
        _invoice,
        scope=Scope.system(),
    )
