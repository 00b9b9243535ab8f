"""`/v1/tenants`, for platform administrators; and `/v1/tenant`, a tenant's own."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from kgents.api.body import Body
from kgents.api.call import PlatformAdmin, UsageRead
from kgents.api.json_route import JsonRoute
from kgents.api.paging import Cursor, Limit, Page
from kgents.api.problems import PROBLEMS
from kgents.api.unit import read, write
from kgents.clock import to_rfc3339
from kgents.store.engine import Scope
from kgents.tenants.model import MAX_QUOTA, MAX_RATE, UNSET, Tenant, TenantUpdate

router = APIRouter(tags=["Tenants"], route_class=JsonRoute)

TenantId = Annotated[str, Path(max_length=64, description="The tenant's id.")]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Rate = Annotated[int, Field(ge=1, le=MAX_RATE)]
Quota = Annotated[int, Field(ge=0, le=MAX_QUOTA)]


class Quotas(Body):
    """What the tenant may use in a calendar month (UTC), per meter; null takes the limit away."""

    runs: Quota | None = None
    input_tokens: Quota | None = None
    output_tokens: Quota | None = None
    tool_calls: Quota | None = None


class TenantChange(Body):
    """What to change of a tenant; fields that are left out stay as they are, a null rate is the platform's default."""

    name: Name | None = None
    status: Literal["active", "suspended", "deleted"] | None = None
    requests_per_minute: Rate | None = None
    tokens_per_minute: Rate | None = None
    quotas: Quotas | None = None

    def update(self) -> TenantUpdate:
        """The change as the service takes it."""
        given = self.model_fields_set
        return TenantUpdate(
            name=self.name,
            status=self.status,
            requests_per_minute=self.requests_per_minute if "requests_per_minute" in given else UNSET,
            tokens_per_minute=self.tokens_per_minute if "tokens_per_minute" in given else UNSET,
            quotas=self.quotas.model_dump(exclude_unset=True) if self.quotas else {},
        )


class TenantRequest(TenantChange):
    """A tenant to create."""

    name: Name
    status: None = None


class TenantDocument(BaseModel):
    """A tenant."""

    object: Literal["tenant"] = "tenant"
    id: str
    name: str
    status: Literal["active", "suspended", "deleted"]
    requests_per_minute: int | None
    tokens_per_minute: int | None
    quotas: dict[str, int]
    created_at: str
    updated_at: str


def show(tenant: Tenant) -> TenantDocument:
    """A tenant as the API shows it."""
    return TenantDocument(
        id=tenant.tenant_id,
        name=tenant.name,
        status=tenant.status,
        requests_per_minute=tenant.requests_per_minute,
        tokens_per_minute=tenant.tokens_per_minute,
        quotas=tenant.quotas,
        created_at=to_rfc3339(tenant.created_at),
        updated_at=to_rfc3339(tenant.updated_at),
    )


@router.post(
    "/v1/tenants",
    operation_id="create_tenant",
    summary="Create a tenant",
    status_code=201,
    response_model=TenantDocument,
    responses=PROBLEMS,
)
async def create_tenant(call: PlatformAdmin, body: TenantRequest) -> Response:
    """A new tenant. Give it a key with POST /v1/tenants/{id}/api-keys."""
    return await write(
        call,
        lambda connection: call.services.tenants.create(connection, body.update(), call.actor),
        show,
        status=201,
        scope=Scope.system(),
    )


@router.get(
    "/v1/tenants",
    operation_id="list_tenants",
    summary="List tenants",
    response_model=Page[TenantDocument],
    responses=PROBLEMS,
)
async def list_tenants(call: PlatformAdmin, limit: Limit = 20, after: Cursor = "") -> Page[TenantDocument]:
    """All tenants in the order of their ids, deleted ones too."""
    found = await read(
        call, lambda connection: call.services.tenants.list(connection, after=after, limit=limit), Scope.system()
    )
    return Page.of([show(tenant) for tenant in found.items], has_more=found.has_more)


@router.get(
    "/v1/tenants/{tenant_id}",
    operation_id="get_tenant",
    summary="Get a tenant",
    response_model=TenantDocument,
    responses=PROBLEMS,
)
async def get_tenant(call: PlatformAdmin, tenant_id: TenantId) -> TenantDocument:
    """A tenant."""
    return show(await read(call, lambda connection: call.services.tenants.get(connection, tenant_id), Scope.system()))


@router.patch(
    "/v1/tenants/{tenant_id}",
    operation_id="update_tenant",
    summary="Update a tenant",
    response_model=TenantDocument,
    responses=PROBLEMS,
)
async def update_tenant(call: PlatformAdmin, tenant_id: TenantId, body: TenantChange) -> Response:
    """Change a tenant's name, status, rates or quotas. A suspended or deleted tenant's keys stop within a second, and
    its runs that are queued are cancelled when it is their turn.
    """

    def unit(connection: Connection) -> Tenant:
        tenant = call.services.tenants.update(connection, tenant_id, body.update(), call.actor)
        if tenant.status == "deleted":
            call.services.billing.end(connection, tenant_id, call.actor)
        return tenant

    return await write(call, unit, show, scope=Scope.system())


@router.get(
    "/v1/tenant",
    operation_id="get_own_tenant",
    summary="Get the calling tenant",
    response_model=TenantDocument,
    responses=PROBLEMS,
)
async def get_own_tenant(call: UsageRead) -> TenantDocument:
    """The tenant that the key belongs to, with its rates and quotas."""
    return show(await read(call, lambda connection: call.services.tenants.get(connection, call.tenant_id)))
