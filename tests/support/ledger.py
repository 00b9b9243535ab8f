"""Usage that tests put into a ledger, without the runs that it would come from."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import Connection

from kgents.errors import QuotaExceeded
from kgents.ids import new_id
from kgents.store.engine import Scope, Store
from kgents.store.tables import quotas, tenants
from kgents.usage import ledger
from kgents.usage.ledger import Posting
from kgents.usage.model import METERS, Amounts, events_of

SOURCE = "kgents"
STEP = Amounts(runs=1, input_tokens=10, output_tokens=5)


def posting(
    tenant_id: str,
    now: int,
    used: Amounts = STEP,
    *,
    run_id: str = "",
    agent_id: str = "agt_1",
    model: str = "kgents:echo",
    estimated: bool = False,
) -> Posting:
    """One step of a run that used so much."""
    events = events_of(
        used,
        tenant_id=tenant_id,
        run_id=run_id or new_id("run"),
        step=0,
        agent_id=agent_id,
        model=model,
        estimated=estimated,
        now=now,
    )
    return Posting(tenant_id, now, events=events, used=used)


async def tenant_with(store: Store, limits: Sequence[int] = ()) -> str:
    """The id of a new tenant, with monthly limits of the meters in their order."""
    name = new_id("ten")

    def unit(connection: Connection) -> None:
        row = {"tenant_id": name, "name": f"n{name}", "status": "active", "created_at": 0, "updated_at": 0}
        connection.execute(sa.insert(tenants), row)
        for meter, most in zip(METERS, limits, strict=False):
            connection.execute(sa.insert(quotas), {"tenant_id": name, "meter": meter, "monthly_limit": most})

    await store.write(Scope.system(), unit)
    return name


async def post_group(store: Store, *postings: Posting) -> list[QuotaExceeded | None]:
    """Post them in one transaction; answers why each was refused, or None."""
    return await store.write(Scope.system(), lambda connection: ledger.post(connection, postings, source=SOURCE))


def post(connection: Connection, *postings: Posting) -> None:
    """Put them into the ledger, and their events into the outbox."""
    ledger.post(connection, postings, source=SOURCE)
