"""SQL over everything that one tenant has: pages of rows to export, and their erasure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy import Connection, Table

from kgents.ids import new_id
from kgents.store.tables import (
    agent_versions,
    agents,
    api_keys,
    audit_log,
    cache_changes,
    idempotency_keys,
    messages,
    outbox,
    quotas,
    run_steps,
    runs,
    sessions,
    subscriptions,
    tenants,
    usage_events,
)
from kgents.tenants.model import PLATFORM, SYSTEM

ERASE, ERASED = "tenant.erase", "tenant.erased"  # actions in the platform's audit log: begun, done
EXPORT = "tenant.export"  # begun
UNFINISHED = sa.text("runs.status IN ('queued', 'running')")
_BY_RUN: tuple[Table, ...] = (messages, run_steps)

Row = dict[str, Any]


def name_of(connection: Connection, tenant_id: str) -> str | None:
    """The tenant's name; None for one that is not there."""
    name: str | None = connection.execute(
        sa.select(tenants.c.name).where(tenants.c.tenant_id == tenant_id)
    ).scalar_one_or_none()
    return name


def page(connection: Connection, table: Table, tenant_id: str, key: Sequence[str], after: Row, limit: int) -> list[Row]:
    """The tenant's rows of a table in the order of `key`, those after the row `after` (empty: from the first)."""
    columns = [table.c[name] for name in key]
    statement = sa.select(table).where(table.c.tenant_id == tenant_id)
    if after:
        reached = [sa.literal(after[column.name], column.type) for column in columns]
        statement = statement.where(sa.tuple_(*columns) > sa.tuple_(*reached))
    return [dict(row) for row in connection.execute(statement.order_by(*columns).limit(limit)).mappings()]


def children(connection: Connection, table: Table, tenant_id: str, parent: str, ids: Sequence[str]) -> list[Row]:
    """The tenant's rows of a table that belong to these parents (runs, or agents), in the order of its key."""
    mine = (table.c.tenant_id == tenant_id, table.c[parent].in_(ids))
    statement = sa.select(table).where(*mine).order_by(*table.primary_key.columns)
    return [dict(row) for row in connection.execute(statement).mappings()]


def suspend(connection: Connection, tenant_id: str, now: int) -> None:
    """Have the tenant's keys refused from now on."""
    connection.execute(
        sa.update(tenants).where(tenants.c.tenant_id == tenant_id).values(status="suspended", updated_at=now)
    )


def unfinished(connection: Connection, tenant_id: str, limit: int) -> list[tuple[str, str, str | None]]:
    """Runs of the tenant that have not ended: id, status and who carries it out."""
    statement = sa.select(runs.c.run_id, runs.c.status, runs.c.owner).where(runs.c.tenant_id == tenant_id, UNFINISHED)
    return [(row[0], row[1], row[2]) for row in connection.execute(statement.order_by(runs.c.run_id).limit(limit))]


def owned_runs(connection: Connection, tenant_id: str, run_ids: Sequence[str]) -> list[str]:
    """Those of the runs that are, or by the ledger were, the tenant's."""
    recorded = sa.select(runs.c.run_id).where(runs.c.tenant_id == tenant_id, runs.c.run_id.in_(run_ids))
    first = [f"{run_id}:0:runs" for run_id in run_ids]  # each run that used anything has this event
    charged = sa.select(usage_events.c.run_id).where(
        usage_events.c.tenant_id == tenant_id, usage_events.c.event_id.in_(first)
    )
    return sorted({*connection.execute(recorded).scalars(), *connection.execute(charged).scalars()})


def erase_runs(connection: Connection, tenant_id: str, limit: int) -> dict[str, int]:
    """Delete some runs with what belongs to them; answers how many rows of each table, no runs when none are left."""
    oldest = sa.select(runs.c.run_id).where(runs.c.tenant_id == tenant_id).order_by(runs.c.run_id).limit(limit)
    ids = list(connection.execute(oldest).scalars())
    counts = {
        str(table.name): connection.execute(
            sa.delete(table).where(table.c.tenant_id == tenant_id, table.c.run_id.in_(ids))
        ).rowcount
        for table in _BY_RUN
    }
    counts["runs"] = connection.execute(
        sa.delete(runs).where(runs.c.tenant_id == tenant_id, runs.c.run_id.in_(ids))
    ).rowcount
    return counts


def erase_some(connection: Connection, table: Table, key: Sequence[str], tenant_id: str, limit: int) -> int:
    """Delete some of the tenant's rows of a table, found by the columns of `key`; answers how many."""
    columns = [table.c[name] for name in key]
    found = sa.select(*columns).where(table.c.tenant_id == tenant_id).limit(limit)
    rows = [tuple(row) for row in connection.execute(found)]
    if not rows:
        return 0
    which = sa.tuple_(*columns).in_(rows)
    return connection.execute(sa.delete(table).where(table.c.tenant_id == tenant_id, which)).rowcount


def blank_audit(connection: Connection, tenant_id: str, after: str, limit: int) -> tuple[str, int]:
    """Take what persons wrote, and where from, out of some entries of the tenant's audit log: those after the id
    `after`. Answers the last id (empty: no more) and how many had anything.
    """
    mine = audit_log.c.tenant_id == tenant_id
    statement = sa.select(audit_log.c.audit_id).where(mine, audit_log.c.audit_id > after)
    ids = list(connection.execute(statement.order_by(audit_log.c.audit_id).limit(limit)).scalars())
    full = sa.or_(audit_log.c.detail != "{}", audit_log.c.source_ip != "", audit_log.c.request_id != "")
    changed = connection.execute(
        sa.update(audit_log)
        .where(mine, audit_log.c.audit_id.in_(ids), full)
        .values(detail="{}", source_ip="", request_id="")
    ).rowcount
    return (ids[-1] if ids else ""), changed


def finish(connection: Connection, tenant_id: str, now: int) -> dict[str, int]:
    """Delete what is left, the tenant itself last: from then on no row that needs it can be written. Its subscription
    ends, and stays with its invoices.

    Raises IntegrityError where something was written since, and then nothing is deleted.
    """
    connection.execute(sa.delete(cache_changes).where(cache_changes.c.tenant_id == tenant_id))  # has names of agents
    ends = (subscriptions.c.tenant_id == tenant_id, subscriptions.c.ended_at.is_(None))
    connection.execute(sa.update(subscriptions).where(*ends).values(ended_at=now))
    counts: dict[str, int] = {}
    for table in (idempotency_keys, quotas, api_keys, tenants):
        deleted = connection.execute(sa.delete(table).where(table.c.tenant_id == tenant_id))
        counts[str(table.name)] = deleted.rowcount
    counts["idempotency_keys"] += _erase_answers(connection, tenant_id)
    waiting = sa.delete(outbox).where(outbox.c.tenant_id == tenant_id, outbox.c.topic == "run")
    counts["outbox"] = connection.execute(waiting).rowcount
    return counts


def _erase_answers(connection: Connection, tenant_id: str) -> int:
    """Delete what is kept to answer administrators again who made or changed the tenant or its keys: each such answer
    has the tenant's id. Only once the tenant's row is gone, whose lock keeps out further ones.
    """
    about = idempotency_keys.c.body.contains(f'"{tenant_id}"', autoescape=True)
    statement = sa.delete(idempotency_keys).where(idempotency_keys.c.tenant_id == PLATFORM, about)
    return connection.execute(statement).rowcount


def record(connection: Connection, action: str, tenant_id: str, operator: str, detail: Row, now: int) -> None:
    """Write into the platform's audit log that an erasure or export was begun or done, and by whom."""
    connection.execute(
        sa.insert(audit_log),
        {
            "audit_id": new_id("aud"),
            "tenant_id": PLATFORM,
            "actor": SYSTEM.key_id,
            "action": action,
            "object_type": "tenant",
            "object_id": tenant_id,
            "source_ip": "",
            "request_id": "",
            "detail": orjson.dumps({"operator": operator, **detail}).decode(),
            "created_at": now,
        },
    )


def recorded(connection: Connection) -> list[tuple[str, str, int]]:
    """The erasures in the platform's audit log, oldest first: action, tenant's id, time."""
    statement = sa.select(audit_log.c.action, audit_log.c.object_id, audit_log.c.created_at).where(
        audit_log.c.tenant_id == PLATFORM, audit_log.c.action.in_((ERASE, ERASED))
    )
    return [(row[0], row[1], row[2]) for row in connection.execute(statement.order_by(audit_log.c.audit_id))]


ERASED_ROWS: tuple[tuple[Table, tuple[str, ...]], ...] = (
    (sessions, ("session_id",)),
    (agent_versions, ("agent_id", "version")),
    (agents, ("agent_id",)),
    (idempotency_keys, ("tenant_id", "key")),
)
"""The tables that may hold many rows, beside those of runs, in an order that foreign keys allow."""
