"""`/v1/api-keys`: a tenant's keys; and, for platform administrators, the first keys of a tenant."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from kgents.api.body import Body
from kgents.api.call import Call, KeysRead, KeysWrite, PlatformAdmin
from kgents.api.json_route import JsonRoute
from kgents.api.paging import Cursor, Limit, Page
from kgents.api.problems import PROBLEMS
from kgents.api.unit import read, write
from kgents.clock import from_rfc3339, to_rfc3339
from kgents.errors import Unprocessable
from kgents.store.engine import Scope
from kgents.tenants.model import OWNER, ApiKey, IssuedKey

router = APIRouter(tags=["API keys"], route_class=JsonRoute)

KeyId = Annotated[str, Path(max_length=64, description="The key's id: its part between the underscores.")]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Time = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
ScopeName = Literal[
    "agents:read",
    "agents:write",
    "sessions:read",
    "sessions:write",
    "runs:read",
    "runs:write",
    "usage:read",
    "keys:read",
    "keys:write",
    "audit:read",
    "platform:admin",
]


class ApiKeyRequest(Body):
    """A key to create: with the scopes, or those of the role; never more than the caller's own key has."""

    name: Name
    scopes: Annotated[list[ScopeName], Field(fail_fast=True, min_length=1, max_length=32)] | None = None
    role: Literal["owner", "developer", "viewer"] | None = None
    expires_at: Annotated[Time | None, Field(description="RFC 3339, with an offset.")] = None


class RotateRequest(Body):
    """How long the old key is to work on."""

    overlap_seconds: Annotated[int, Field(ge=0, le=30 * 86_400)] = 86_400


class ApiKeyDocument(BaseModel):
    """An API key. Its token is shown only in the answer that creates it, and not in a replay of that answer."""

    object: Literal["api_key"] = "api_key"
    id: str
    tenant_id: str
    name: str
    status: Literal["active", "expired", "revoked"]
    scopes: list[str]
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    revoked_at: str | None
    rotated_from: str | None
    token: str | None = None


def _time(value: int | None) -> str | None:
    return None if value is None else to_rfc3339(value)


def _expiry(value: str | None) -> int | None:
    try:
        return None if value is None else from_rfc3339(value)
    except ValueError as error:
        raise Unprocessable(f"expires_at: {error}", param="expires_at") from error


def show(call: Call, key: ApiKey, token: str | None = None) -> ApiKeyDocument:
    """A key as the API shows it."""
    return ApiKeyDocument(
        id=key.key_id,
        tenant_id=key.tenant_id,
        name=key.name,
        status=key.status(call.now()),
        scopes=sorted(key.scopes),
        created_at=to_rfc3339(key.created_at),
        expires_at=_time(key.expires_at),
        last_used_at=_time(key.last_used_at),
        revoked_at=_time(key.revoked_at),
        rotated_from=key.rotated_from,
        token=token,
    )


async def _create(call: Call, tenant_id: str, body: ApiKeyRequest, granting: frozenset[str], scope: Scope) -> Response:
    expires_at = _expiry(body.expires_at)

    def unit(connection: Connection) -> IssuedKey:
        return call.services.keys.create(
            connection,
            tenant_id,
            name=body.name,
            scopes=body.scopes,
            role=body.role,
            expires_at=expires_at,
            granting=granting,
            until=call.principal.expires_at,
            actor=call.actor,
        )

    return await write(
        call,
        unit,
        lambda issued: show(call, issued.key, issued.token),
        save=lambda issued: show(call, issued.key),
        status=201,
        scope=scope,
    )


@router.post(
    "/v1/api-keys",
    operation_id="create_api_key",
    summary="Create an API key",
    status_code=201,
    response_model=ApiKeyDocument,
    responses=PROBLEMS,
)
async def create_api_key(call: KeysWrite, body: ApiKeyRequest) -> Response:
    """A new key of the tenant. The answer holds its token, which is kept nowhere and can't be shown again. A key that
    expires makes none that outlives it: without `expires_at` the new key expires with it.
    """
    return await _create(call, call.tenant_id, body, call.principal.scopes, Scope.tenant(call.tenant_id))


@router.post(
    "/v1/tenants/{tenant_id}/api-keys",
    operation_id="create_tenant_api_key",
    summary="Create an API key for a tenant",
    status_code=201,
    response_model=ApiKeyDocument,
    responses=PROBLEMS,
)
async def create_tenant_api_key(
    call: PlatformAdmin, tenant_id: Annotated[str, Path(max_length=64)], body: ApiKeyRequest
) -> Response:
    """A key for a tenant that has none yet, or has lost its own. For platform administrators."""
    granting = call.principal.scopes | (OWNER if tenant_id != call.tenant_id else frozenset())
    return await _create(call, tenant_id, body, granting, Scope.system())


@router.get(
    "/v1/api-keys",
    operation_id="list_api_keys",
    summary="List API keys",
    response_model=Page[ApiKeyDocument],
    responses=PROBLEMS,
)
async def list_api_keys(call: KeysRead, limit: Limit = 20, after: Cursor = "") -> Page[ApiKeyDocument]:
    """The tenant's keys in the order of their ids, ended ones too."""
    found = await read(
        call, lambda connection: call.services.keys.list(connection, call.tenant_id, after=after, limit=limit)
    )
    return Page.of([show(call, key) for key in found.items], has_more=found.has_more)


@router.get(
    "/v1/api-keys/{key_id}",
    operation_id="get_api_key",
    summary="Get an API key",
    response_model=ApiKeyDocument,
    responses=PROBLEMS,
)
async def get_api_key(call: KeysRead, key_id: KeyId) -> ApiKeyDocument:
    """A key of the tenant."""
    return show(call, await read(call, lambda connection: call.services.keys.get(connection, call.tenant_id, key_id)))


@router.post(
    "/v1/api-keys/{key_id}/rotate",
    operation_id="rotate_api_key",
    summary="Rotate an API key",
    status_code=201,
    response_model=ApiKeyDocument,
    responses=PROBLEMS,
)
async def rotate_api_key(call: KeysWrite, key_id: KeyId, body: RotateRequest) -> Response:
    """A new key with the old one's name and scopes; the old one works on for the overlap. The new key lasts as long as
    the old one did, but not longer than the key that rotates it; one that expires later than that key is refused.
    """
    return await write(
        call,
        lambda connection: call.services.keys.rotate(
            connection,
            call.tenant_id,
            key_id,
            overlap_seconds=body.overlap_seconds,
            granting=call.principal.scopes,
            until=call.principal.expires_at,
            actor=call.actor,
        ),
        lambda issued: show(call, issued.key, issued.token),
        save=lambda issued: show(call, issued.key),
        status=201,
    )


@router.delete(
    "/v1/api-keys/{key_id}",
    operation_id="revoke_api_key",
    summary="Revoke an API key",
    response_model=ApiKeyDocument,
    responses=PROBLEMS,
)
async def revoke_api_key(call: KeysWrite, key_id: KeyId) -> Response:
    """Stop a key, in every process within a second. Revoking it again changes nothing. A key may stop itself, and those
    that have no scope that it lacks.
    """
    return await write(
        call,
        lambda connection: call.services.keys.revoke(
            connection, call.tenant_id, key_id, granting=call.principal.scopes, actor=call.actor
        ),
        lambda key: show(call, key),
    )
