"""`/v1/plans`, for platform administrators: what tenants may be subscribed to."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from kgents.api.body import Body
from kgents.api.call import PlatformAdmin
from kgents.api.json_route import JsonRoute
from kgents.api.paging import Cursor, Limit, Page
from kgents.api.problems import PROBLEMS
from kgents.api.routes.tenants import Name, Quotas
from kgents.api.unit import read, write
from kgents.billing.model import MAX_AMOUNT, MAX_PER, MAX_PRICES, Plan, Price, Terms
from kgents.clock import to_rfc3339
from kgents.store.engine import Scope
from kgents.tenants.model import MAX_QUOTA

router = APIRouter(tags=["Plans"], route_class=JsonRoute)

PlanId = Annotated[str, Path(max_length=64, description="The plan's id.")]
Amount = Annotated[int, Field(ge=0, le=MAX_AMOUNT, description="Whole minor units (cents) of the plan's currency.")]
MeterName = Literal["runs", "input_tokens", "output_tokens", "tool_calls"]


class PriceBody(Body):
    """What a meter costs: `amount` for each `per` units of a model, or (null) of all that have no price of their own.
    The first `included` units of a month cost nothing.
    """

    meter: MeterName
    model: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x20]+$")] | None = None
    amount: Amount
    per: Annotated[int, Field(ge=1, le=MAX_PER)] = 1
    included: Annotated[int, Field(ge=0, le=MAX_QUOTA)] = 0


class PlanRequest(Body):
    """A plan to create. It can't be changed later: another price is another plan."""

    name: Name
    currency: Annotated[str, Field(pattern="^[a-z]{3}$", description="As ISO 4217 has it, in small letters.")]
    monthly_fee: Amount = 0
    prices: Annotated[list[PriceBody], Field(fail_fast=True, max_length=MAX_PRICES)] = Field(default_factory=list)
    quotas: Quotas = Field(default_factory=Quotas)

    def terms(self) -> Terms:
        """The plan's terms."""
        return Terms(
            name=self.name,
            currency=self.currency,
            monthly_fee=self.monthly_fee,
            prices=tuple(Price(**price.model_dump()) for price in self.prices),
            quotas=self.quotas.model_dump(exclude_none=True),
        )


class PriceDocument(BaseModel):
    """What a meter costs."""

    meter: str
    model: str | None
    amount: int
    per: int
    included: int


class PlanDocument(BaseModel):
    """A plan."""

    object: Literal["plan"] = "plan"
    id: str
    name: str
    currency: str
    monthly_fee: int
    prices: list[PriceDocument]
    quotas: dict[str, int]
    created_at: str
    archived_at: str | None


def shown(terms: Terms) -> dict[str, Any]:
    """The fields of a plan's terms, as the API shows them of plans and subscriptions."""
    return asdict(terms) | {"prices": [PriceDocument(**asdict(price)) for price in terms.prices]}


def show(plan: Plan) -> PlanDocument:
    """A plan as the API shows it."""
    return PlanDocument(
        id=plan.plan_id,
        **shown(plan.terms),
        created_at=to_rfc3339(plan.created_at),
        archived_at=None if plan.archived_at is None else to_rfc3339(plan.archived_at),
    )


@router.post(
    "/v1/plans",
    operation_id="create_plan",
    summary="Create a plan",
    status_code=201,
    response_model=PlanDocument,
    responses=PROBLEMS,
)
async def create_plan(call: PlatformAdmin, body: PlanRequest) -> Response:
    """A new plan. Put a tenant on it with PUT /v1/tenants/{id}/subscription."""
    return await write(
        call,
        lambda connection: call.services.billing.create_plan(connection, body.terms(), call.actor),
        show,
        status=201,
        scope=Scope.system(),
    )


@router.get(
    "/v1/plans",
    operation_id="list_plans",
    summary="List plans",
    response_model=Page[PlanDocument],
    responses=PROBLEMS,
)
async def list_plans(call: PlatformAdmin, limit: Limit = 20, after: Cursor = "") -> Page[PlanDocument]:
    """All plans in the order of their creation, archived ones too."""
    found = await read(
        call, lambda connection: call.services.billing.list_plans(connection, after=after, limit=limit), Scope.system()
    )
    return Page.of([show(plan) for plan in found.items], has_more=found.has_more)


@router.get(
    "/v1/plans/{plan_id}",
    operation_id="get_plan",
    summary="Get a plan",
    response_model=PlanDocument,
    responses=PROBLEMS,
)
async def get_plan(call: PlatformAdmin, plan_id: PlanId) -> PlanDocument:
    """A plan, archived or not."""
    return show(
        await read(call, lambda connection: call.services.billing.get_plan(connection, plan_id), Scope.system())
    )


@router.delete(
    "/v1/plans/{plan_id}",
    operation_id="archive_plan",
    summary="Archive a plan",
    response_model=PlanDocument,
    responses=PROBLEMS,
)
async def archive_plan(call: PlatformAdmin, plan_id: PlanId) -> Response:
    """Offer the plan no more. Its name is free again; who is on it stays on it."""
    return await write(
        call,
        lambda connection: call.services.billing.archive_plan(connection, plan_id, call.actor),
        show,
        scope=Scope.system(),
    )
