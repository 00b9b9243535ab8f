"""Usage that tests put into a ledger, without the runs that it would come from."""

from __future__ import annotations

from sqlalchemy import Connection

from kgents.ids import new_id
from kgents.usage import ledger
from kgents.usage.ledger import Posting
from kgents.usage.model import Amounts, events_of

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


def post(connection: Connection, *postings: Posting) -> None:
    """Put them into the ledger, and their events into the outbox."""
    ledger.post(connection, postings, source=SOURCE)
