"""SQL of tenants, quotas, API keys and the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping

from kgents.store.tables import api_keys, audit_log, quotas, tenants
from kgents.store.upsert import insert
from kgents.tenants.model import ApiKey, AuditEntry, Tenant, TenantStatus


def insert_tenant(connection: Connection, tenant: Tenant) -> bool:
    """Insert a tenant without quotas; False when its id or name is taken."""
    row = {
        "tenant_id": tenant.tenant_id,
        "name": tenant.name,
        "status": tenant.status,
        "requests_per_minute": tenant.requests_per_minute,
        "tokens_per_minute": tenant.tokens_per_minute,
        "created_at": tenant.created_at,
        "updated_at": tenant.updated_at,
    }
    statement = insert(connection, tenants).values(row).on_conflict_do_nothing()
    return connection.execute(statement.returning(tenants.c.tenant_id)).first() is not None


def update_tenant(connection: Connection, tenant: Tenant) -> None:
    """Write a tenant's own fields (not its quotas). A name that is taken is an IntegrityError."""
    connection.execute(
        sa.update(tenants)
        .where(tenants.c.tenant_id == tenant.tenant_id)
        .values(
            name=tenant.name,
            status=tenant.status,
            requests_per_minute=tenant.requests_per_minute,
            tokens_per_minute=tenant.tokens_per_minute,
            updated_at=tenant.updated_at,
        )
    )


def set_quota(connection: Connection, tenant_id: str, meter: str, monthly_limit: int | None) -> None:
    """Write a tenant's quota of a meter, or remove it."""
    if monthly_limit is None:
        connection.execute(sa.delete(quotas).where(quotas.c.tenant_id == tenant_id, quotas.c.meter == meter))
        return
    statement = insert(connection, quotas).values(tenant_id=tenant_id, meter=meter, monthly_limit=monthly_limit)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[quotas.c.tenant_id, quotas.c.meter],
            set_={"monthly_limit": statement.excluded.monthly_limit},
        )
    )


def tenant_by_id(connection: Connection, tenant_id: str, *, lock: bool = False) -> Tenant | None:
    """The tenant of this id; `lock` holds its row to the end of the transaction."""
    statement = sa.select(tenants).where(tenants.c.tenant_id == tenant_id)
    rows = connection.execute(statement.with_for_update() if lock else statement).mappings().all()
    return next(iter(_tenants(connection, rows)), None)


def tenant_by_name(connection: Connection, name: str) -> Tenant | None:
    """The tenant of this name."""
    rows = connection.execute(sa.select(tenants).where(tenants.c.name == name)).mappings().all()
    return next(iter(_tenants(connection, rows)), None)


def list_tenants(connection: Connection, after: str, limit: int) -> list[Tenant]:
    """Tenants in the order of their ids, after the given one."""
    statement = sa.select(tenants).where(tenants.c.tenant_id > after).order_by(tenants.c.tenant_id).limit(limit)
    return _tenants(connection, connection.execute(statement).mappings().all())


def _tenants(connection: Connection, rows: Sequence[RowMapping]) -> list[Tenant]:
    limits: dict[str, dict[str, int]] = {row["tenant_id"]: {} for row in rows}
    statement = sa.select(quotas).where(quotas.c.tenant_id.in_(list(limits))).order_by(quotas.c.meter)
    for quota in connection.execute(statement).mappings():
        limits[quota["tenant_id"]][quota["meter"]] = quota["monthly_limit"]
    return [Tenant(**row, quotas=limits[row["tenant_id"]]) for row in rows]


_KEY_COLUMNS = [
    api_keys.c.key_id,
    api_keys.c.tenant_id,
    api_keys.c.name,
    api_keys.c.scopes,
    api_keys.c.created_at,
    api_keys.c.expires_at,
    api_keys.c.last_used_at,
    api_keys.c.revoked_at,
    api_keys.c.rotated_from,
]


@lru_cache(1024)
def _scopes(value: str) -> frozenset[str]:
    return frozenset(orjson.loads(value))  # shared: a process keeps many keys, and few sets of scopes


def _key(row: RowMapping) -> ApiKey:
    return ApiKey(**{**row, "scopes": _scopes(row["scopes"])})


def insert_key(connection: Connection, key: ApiKey, digest: bytes, pepper_version: int) -> None:
    """Insert a key with the hash of its secret."""
    connection.execute(
        sa.insert(api_keys),
        {
            "key_id": key.key_id,
            "tenant_id": key.tenant_id,
            "name": key.name,
            "hash": digest,
            "pepper_version": pepper_version,
            "scopes": orjson.dumps(sorted(key.scopes)).decode(),
            "created_at": key.created_at,
            "expires_at": key.expires_at,
            "rotated_from": key.rotated_from,
        },
    )


def end_key(
    connection: Connection, tenant_id: str, key_id: str, *, expires_at: int | None, revoked_at: int | None
) -> None:
    """Write when a key expires and when it was revoked."""
    connection.execute(
        sa.update(api_keys)
        .where(api_keys.c.tenant_id == tenant_id, api_keys.c.key_id == key_id)
        .values(expires_at=expires_at, revoked_at=revoked_at)
    )


def key_by_id(connection: Connection, tenant_id: str, key_id: str, *, lock: bool = False) -> ApiKey | None:
    """The tenant's key of this id; `lock` holds its row to the end of the transaction."""
    statement = sa.select(*_KEY_COLUMNS).where(api_keys.c.tenant_id == tenant_id, api_keys.c.key_id == key_id)
    row = connection.execute(statement.with_for_update() if lock else statement).mappings().first()
    return _key(row) if row else None


def successor_of(connection: Connection, tenant_id: str, key_id: str) -> str | None:
    """The id of the key that a rotation made in place of this one."""
    statement = sa.select(api_keys.c.key_id).where(api_keys.c.tenant_id == tenant_id, api_keys.c.rotated_from == key_id)
    return connection.execute(statement).scalars().first()


def list_keys(connection: Connection, tenant_id: str, after: str, limit: int) -> list[ApiKey]:
    """The tenant's keys in the order of creation, after the given id."""
    statement = (
        sa.select(*_KEY_COLUMNS)
        .where(api_keys.c.tenant_id == tenant_id, api_keys.c.key_id > after)
        .order_by(api_keys.c.key_id)
        .limit(limit)
    )
    return [_key(row) for row in connection.execute(statement).mappings()]


@dataclass(frozen=True, slots=True)
class Credential:
    """What checking a key needs: the hash of its secret, when it ends, and its tenant's standing."""

    key_id: str
    tenant_id: str
    digest: bytes = field(repr=False)
    pepper_version: int
    scopes: frozenset[str]
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None
    tenant_status: TenantStatus
    requests_per_minute: int | None
    tokens_per_minute: int | None


_CREDENTIAL = (
    sa.select(
        api_keys.c.key_id,
        api_keys.c.tenant_id,
        api_keys.c.hash.label("digest"),
        api_keys.c.pepper_version,
        api_keys.c.scopes,
        api_keys.c.expires_at,
        api_keys.c.revoked_at,
        api_keys.c.last_used_at,
        tenants.c.status.label("tenant_status"),
        tenants.c.requests_per_minute,
        tenants.c.tokens_per_minute,
    )
    .join(tenants, tenants.c.tenant_id == api_keys.c.tenant_id)
    .where(api_keys.c.key_id == sa.bindparam("key_id"))
)


def credential(connection: Connection, key_id: str) -> Credential | None:
    """The key of this id, whosever it is: the one query that comes before the tenant is known."""
    row = connection.execute(_CREDENTIAL, {"key_id": key_id}).mappings().first()
    return Credential(**{**row, "scopes": _scopes(row["scopes"])}) if row else None


_TOUCH = (
    sa.update(api_keys)
    .where(
        api_keys.c.tenant_id == sa.bindparam("of_tenant"),
        api_keys.c.key_id == sa.bindparam("of_key"),
        sa.or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at <= sa.bindparam("if_before")),
    )
    .values(last_used_at=sa.bindparam("used_at"))
)


def touch_keys(connection: Connection, used: Iterable[tuple[str, str, int]], grain: int) -> None:
    """Write when keys were last used: (tenant id, key id, time), but not where that was written less than `grain`
    microseconds before. In the order of the ids, so that two processes can't deadlock.
    """
    rows = [
        {"of_tenant": tenant_id, "of_key": key_id, "used_at": at, "if_before": at - grain}
        for tenant_id, key_id, at in sorted(used)
    ]
    if rows:
        connection.execute(_TOUCH, rows)


def insert_audit(connection: Connection, entry: AuditEntry) -> None:
    """Insert an entry of the audit log. There is no way to change one."""
    connection.execute(
        sa.insert(audit_log),
        {
            "audit_id": entry.audit_id,
            "tenant_id": entry.tenant_id,
            "actor": entry.actor,
            "action": entry.action,
            "object_type": entry.object_type,
            "object_id": entry.object_id,
            "source_ip": entry.source_ip,
            "request_id": entry.request_id,
            "detail": orjson.dumps(entry.detail).decode(),
            "created_at": entry.created_at,
        },
    )


def list_audit(connection: Connection, tenant_id: str, before: str, limit: int) -> list[AuditEntry]:
    """A tenant's entries, newest first, from before the given id on."""
    statement = sa.select(audit_log).where(audit_log.c.tenant_id == tenant_id)
    if before:
        statement = statement.where(audit_log.c.audit_id < before)
    rows = connection.execute(statement.order_by(audit_log.c.audit_id.desc()).limit(limit)).mappings()
    return [AuditEntry(**_detailed(row)) for row in rows]


def _detailed(row: RowMapping) -> dict[str, Any]:
    return {**row, "detail": orjson.loads(row["detail"])}
