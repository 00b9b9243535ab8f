"""One request, one transaction, committed here; with an `Idempotency-Key` the answer is saved in the same transaction.

A retry of a POST therefore finds either nothing (the first try did nothing) or its whole answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import sqlalchemy as sa
from fastapi import Response
from pydantic import BaseModel
from sqlalchemy import Connection

from kgents.agents.ledger_ops import IdempotencyKey, check_key, key_in_use
from kgents.api.call import Call
from kgents.store.engine import Scope
from kgents.store.tables import idempotency_keys
from kgents.store.upsert import insert
from kgents.telemetry import traces

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: str
    replayed: bool = False


async def read(call: Call, fn: Callable[[Connection], T], scope: Scope | None = None) -> T:
    """Run `fn` in a read transaction over the tenant's rows (or over `scope`)."""
    with traces.sql("read"):
        return await call.services.store.read(scope or Scope.tenant(call.tenant_id), fn)


async def write(
    call: Call,
    fn: Callable[[Connection], T],
    show: Callable[[T], BaseModel],
    *,
    status: int = 200,
    scope: Scope | None = None,
    save: Callable[[T], BaseModel] | None = None,
) -> Response:
    """Run `fn` in a transaction and answer with what `show` makes of its result.

    `save` makes what a retry with the same Idempotency-Key is answered, where it must differ: a secret is shown once
    and never stored. Raises Unprocessable when the key was used for another request.
    """
    key = call.idempotency

    def unit(connection: Connection) -> _Answer:
        if key is not None and (earlier := _claim(connection, call.tenant_id, key, call.now())):
            return earlier
        result = fn(connection)
        body = show(result).model_dump_json()
        if key is not None:
            kept = save(result).model_dump_json() if save else body
            _save(connection, call.tenant_id, key, status, kept)
        return _Answer(status, body)

    with traces.sql("write"):
        answer = await call.services.store.write(scope or Scope.tenant(call.tenant_id), unit)
    headers = {"Idempotent-Replayed": "true"} if answer.replayed else None
    return Response(answer.body, status_code=answer.status, headers=headers, media_type="application/json")


def _claim(connection: Connection, tenant_id: str, key: IdempotencyKey, now: int) -> _Answer | None:
    mine = sa.and_(idempotency_keys.c.tenant_id == tenant_id, idempotency_keys.c.key == key.key)
    connection.execute(sa.delete(idempotency_keys).where(mine, idempotency_keys.c.expires_at <= now))
    inserted = connection.execute(
        insert(connection, idempotency_keys)
        .values(
            tenant_id=tenant_id, key=key.key, fingerprint=key.fingerprint, created_at=now, expires_at=key.expires_at
        )
        .on_conflict_do_nothing()
        .returning(idempotency_keys.c.key)
    ).first()
    if inserted is not None:
        return None
    row = connection.execute(sa.select(idempotency_keys).where(mine)).first()
    if row is None:
        raise key_in_use()  # it has expired at this moment
    refusal = check_key(row.fingerprint, key)
    if refusal is not None:
        raise refusal
    return _Answer(row.status, row.body, replayed=True)


def _save(connection: Connection, tenant_id: str, key: IdempotencyKey, status: int, body: str) -> None:
    connection.execute(
        sa.update(idempotency_keys)
        .where(idempotency_keys.c.tenant_id == tenant_id, idempotency_keys.c.key == key.key)
        .values(status=status, body=body)
    )
