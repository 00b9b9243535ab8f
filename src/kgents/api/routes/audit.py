"""`/v1/audit-log`: every administrative change of a tenant: who, what, when, from where."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel

from kgents.api.call import AuditRead
from kgents.api.json_route import JsonRoute
from kgents.api.paging import Cursor, Limit, Page
from kgents.api.problems import PROBLEMS
from kgents.api.unit import read
from kgents.clock import to_rfc3339
from kgents.tenants.model import AuditEntry

router = APIRouter(tags=["Audit log"], route_class=JsonRoute)


class AuditDocument(BaseModel):
    """One change. `actor` is the id of the API key that made it, or `system`."""

    object: Literal["audit_entry"] = "audit_entry"
    id: str
    tenant_id: str
    actor: str
    action: str
    object_type: str
    object_id: str
    source_ip: str
    request_id: str
    detail: dict[str, Any]
    created_at: str


def show(entry: AuditEntry) -> AuditDocument:
    """An entry as the API shows it."""
    return AuditDocument(
        id=entry.audit_id,
        tenant_id=entry.tenant_id,
        actor=entry.actor,
        action=entry.action,
        object_type=entry.object_type,
        object_id=entry.object_id,
        source_ip=entry.source_ip,
        request_id=entry.request_id,
        detail=entry.detail,
        created_at=to_rfc3339(entry.created_at),
    )


@router.get(
    "/v1/audit-log",
    operation_id="list_audit_log",
    summary="Read the audit log",
    response_model=Page[AuditDocument],
    responses=PROBLEMS,
)
async def list_audit_log(call: AuditRead, limit: Limit = 20, after: Cursor = "") -> Page[AuditDocument]:
    """The tenant's administrative changes, newest first."""
    found = await read(
        call, lambda connection: call.services.audit.list(connection, call.tenant_id, after=after, limit=limit)
    )
    return Page.of([show(entry) for entry in found.items], has_more=found.has_more)
