"""The audit log: every administrative change, who made it, when and from where."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from kgents.clock import Clock
from kgents.ids import new_id
from kgents.tenants import repository
from kgents.tenants.model import Actor, AuditEntry, Page
from kgents.tenants.rules import check_limit


class AuditService:
    """Writes entries in the transaction of the change that they tell of, and lists them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def record(
        self,
        connection: Connection,
        tenant_id: str,
        actor: Actor,
        action: str,
        object_type: str,
        object_id: str,
        detail: dict[str, Any] | None = None,
    ) -> AuditEntry:
        """Add an entry for the tenant whose object was changed. `action` is `<object type>.<verb>`; `detail` must be
        JSON and free of secrets and of what users wrote to agents.
        """
        entry = AuditEntry(
            audit_id=new_id("aud"),
            tenant_id=tenant_id,
            actor=actor.key_id,
            action=action,
            object_type=object_type,
            object_id=object_id,
            source_ip=actor.source_ip,
            request_id=actor.request_id,
            detail=detail or {},
            created_at=self._clock.now(),
        )
        repository.insert_audit(connection, entry)
        return entry

    def list(self, connection: Connection, tenant_id: str, *, after: str = "", limit: int = 20) -> Page[AuditEntry]:
        """The tenant's entries, newest first; `after` is the last id of the page before. Raises Unprocessable."""
        check_limit(limit)
        found = repository.list_audit(connection, tenant_id, after, limit + 1)
        return Page(found[:limit], len(found) > limit)
