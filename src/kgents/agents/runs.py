"""Runs as recorded: reading them, asking for their end, claiming, queueing again, and finding those left behind."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from kgents.agents import repository
from kgents.agents.ledger_ops import Finish, RecordStep, StepRecord, queue_row
from kgents.agents.model import AgentDefinition, Run
from kgents.clock import SECOND
from kgents.errors import Conflict, KgentsError, ModelFailed, NotFound
from kgents.ids import is_id
from kgents.store import outbox
from kgents.store.tables import processes, runs, tenants
from kgents.usage.model import Amounts

MAX_ATTEMPTS = 20
UNFINISHED = repository.UNFINISHED


def problem_of(error: KgentsError) -> dict[str, Any]:
    """An error as a run records it, with the seconds to wait where it says when to try again."""
    after = error.headers.get("Retry-After")
    extra = error.extra | ({"retry_after": int(after)} if after else {})
    return {"code": error.code, "title": error.title, "detail": error.detail, "status": error.status, **extra}


def get(connection: Connection, tenant_id: str, run_id: str) -> Run:
    """The tenant's run. Raises NotFound."""
    run = repository.run_by_id(connection, tenant_id, run_id) if is_id(run_id, "run") else None
    if run is None:
        raise NotFound(f"There is no run {run_id!r}. List yours with GET /v1/runs.")
    return run


def list_(
    connection: Connection, tenant_id: str, after: str, limit: int, *, session_id: str = "", status: str = ""
) -> tuple[list[Run], bool]:
    """The tenant's runs, newest first, before the given id, and whether there are more."""
    return repository.list_runs(connection, tenant_id, after, limit, session_id=session_id, status=status)


def request_cancel(connection: Connection, tenant_id: str, run_id: str, now: int, *, source: str) -> Run:
    """Ask for the end of a run: one that is queued is cancelled at once, a running one by the process that has it.

    Asking again changes nothing. Raises NotFound, and Conflict when the run has ended otherwise.
    """
    connection.execute(
        sa.select(runs.c.run_id).where(runs.c.tenant_id == tenant_id, runs.c.run_id == run_id).with_for_update()
    )
    run = get(connection, tenant_id, run_id)
    if run.status in ("completed", "failed"):
        raise Conflict(f"Run {run_id} has already {run.status}.", code="run-finished")
    if run.status == "cancelled":
        return run
    if run.status == "queued":
        end(connection, run, Finish("cancelled"), now, source=source)
        return get(connection, tenant_id, run_id)
    if run.cancel_requested_at is None:
        connection.execute(
            sa.update(runs)
            .where(runs.c.tenant_id == tenant_id, runs.c.run_id == run_id)
            .values(cancel_requested_at=now)
        )
    return run._replace(cancel_requested_at=run.cancel_requested_at or now)


def end(connection: Connection, run: Run, finish: Finish, now: int, *, source: str) -> None:
    """Record the end of a run that nobody carries out, with what the process that gave it back had used for the step
    that nobody makes now, and release what it had reserved. Nothing is recorded of a run that has ended, or that was
    begun again since it was read.
    """
    found = connection.execute(
        sa.update(runs)
        .where(
            runs.c.tenant_id == run.tenant_id,
            runs.c.run_id == run.run_id,
            runs.c.attempt == run.attempt,
            runs.c.status.in_(("queued", "running")),
        )
        .values(status="running")
        .returning(runs.c.cut_off)
    ).first()
    if found is None:
        return
    record = StepRecord(
        run_id=run.run_id,
        tenant_id=run.tenant_id,
        attempt=run.attempt,
        agent_id=run.agent_id,
        model="",
        step=len(repository.steps_of(connection, run.tenant_id, run.run_id)),
        now=now,
        finish=finish,
    )
    cut_off = repository.load_cut_off(found.cut_off)
    if cut_off and cut_off.step == record.step:  # else the step was made again, and is metered
        record = record._replace(model=cut_off.model, used=Amounts(*cut_off.used), estimated=cut_off.estimated)
    RecordStep(source).apply(connection, [record])


def erase(connection: Connection, run: Run) -> None:
    """Delete what a finished run was asked and what it said; its usage stays. Raises Conflict while it is running."""
    if not run.finished:
        raise Conflict(f"Run {run.run_id} is not finished. Wait for it or cancel it first.", code="run-not-finished")
    repository.erase_run(connection, run.tenant_id, run.run_id)


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that a worker may carry out, with what it needs: the run's own steps so far and its session's messages."""

    run: Run
    definition: AgentDefinition
    earlier: Sequence[str]
    steps: Sequence[str]


# In the words of the index on them.
_QUEUED = sa.text("runs.status = 'queued'")
_NEXT_TENANT = (
    sa.select(runs.c.tenant_id)
    .where(_QUEUED, runs.c.tenant_id > sa.bindparam("after"))
    .order_by(runs.c.tenant_id, runs.c.run_id)
    .limit(1)
)
_OLDEST = (
    sa.select(runs.c.run_id)
    .where(_QUEUED, runs.c.tenant_id == sa.bindparam("tenant"))
    .order_by(runs.c.run_id)
    .limit(sa.bindparam("most"))
)


def first_queued(
    connection: Connection, most: int, *, after: str, without: Collection[str]
) -> Sequence[tuple[str, str]]:
    """Queued runs, with their tenants before them: the oldest of each of the tenants that come `after` one, and then
    from the first on, but for those `without`; so many of a tenant, and about so many in all. What it costs does not
    grow with what is queued.
    """
    found: list[tuple[str, str]] = []
    tenant: str | None = after
    seen: set[str] = set()
    while len(found) < most:
        tenant = connection.execute(_NEXT_TENANT, {"after": tenant or ""}).scalar_one_or_none()
        if tenant is None and after:
            after = ""  # once more, from the first
        elif tenant is None or tenant in seen:
            break
        else:
            seen.add(tenant)
            if tenant not in without:
                oldest = connection.execute(_OLDEST, {"tenant": tenant, "most": most}).scalars()
                found += [(tenant, run_id) for run_id in oldest]
    return found


def claim(
    connection: Connection,
    tenant_id: str,
    run_id: str,
    instance: str,
    now: int,
    *,
    source: str,
    events_seen: bool = True,
) -> Claim | str:
    """Take a run for this process instance, at the next attempt. Otherwise says why not: `gone`, `finished`, `busy`
    (another process has it, and nobody has found that one dead), or `has-events` (it was begun, and goes on only where
    its events so far can be read, which the caller has not seen). A run that has been tried too often ends as failed,
    one whose tenant is suspended or deleted as cancelled.
    """
    connection.execute(
        sa.select(runs.c.run_id).where(runs.c.tenant_id == tenant_id, runs.c.run_id == run_id).with_for_update()
    )
    run = repository.run_by_id(connection, tenant_id, run_id)
    if run is None:
        return "gone"
    if run.finished:
        return "finished"
    if run.status == "running" and run.owner not in (None, instance) and is_present(connection, run.owner or ""):
        return "busy"
    if run.cancel_requested_at is not None or not _is_active(connection, tenant_id):
        end(connection, run, Finish("cancelled"), now, source=source)
        return "finished"
    if run.attempt >= MAX_ATTEMPTS:
        error = ModelFailed(
            f"The run was started {run.attempt} times, and no process could bring it to its end. It is not tried "
            "again.",
            code="too-many-attempts",
        )
        end(connection, run, Finish("failed", error=problem_of(error)), now, source=source)
        return "finished"
    if run.attempt and run.mode != "wait" and not events_seen:
        return "has-events"
    claimed = run._replace(status="running", attempt=run.attempt + 1, owner=instance, started_at=run.started_at or now)
    connection.execute(
        sa.update(runs)
        .where(runs.c.tenant_id == tenant_id, runs.c.run_id == run_id)
        .values(status="running", attempt=claimed.attempt, owner=instance, started_at=claimed.started_at)
    )
    return Claim(
        claimed,
        repository.definition_at(connection, tenant_id, run.agent_id, run.agent_version),
        _earlier(connection, run),
        repository.steps_of(connection, tenant_id, run_id),
    )


def _is_active(connection: Connection, tenant_id: str) -> bool:
    found = connection.execute(sa.select(tenants.c.status).where(tenants.c.tenant_id == tenant_id))
    return found.scalar_one_or_none() == "active"


def earlier_of_session(connection: Connection, tenant_id: str, session_id: str) -> list[str]:
    """What was said in a session, as JSON texts of messages."""
    return [row["message"] for row in repository.session_messages(connection, tenant_id, session_id)]


def earlier_of_chain(connection: Connection, tenant_id: str, run_id: str) -> list[str]:
    """What was said in a run and in those that it follows on, as JSON texts of messages."""
    return repository.chain_messages(connection, tenant_id, run_id)


def _earlier(connection: Connection, run: Run) -> list[str]:
    if run.session_id:
        return earlier_of_session(connection, run.tenant_id, run.session_id)
    if run.previous_run_id:
        return earlier_of_chain(connection, run.tenant_id, run.previous_run_id)
    return []


class Held(NamedTuple):
    """A run that the record says a process carries out, at its attempt."""

    tenant_id: str
    run_id: str
    attempt: int
    cancel_requested: bool


def requeue(connection: Connection, run: Run | Held, now: int) -> bool:
    """Give a run back to the queue, if it is still the given attempt's, with what its step had used as far as that is
    known. Answers whether it was.
    """
    cut_off = repository.dump_cut_off(run.cut_off) if isinstance(run, Run) else None
    done = connection.execute(
        sa.update(runs)
        .where(
            runs.c.tenant_id == run.tenant_id,
            runs.c.run_id == run.run_id,
            runs.c.attempt == run.attempt,
            runs.c.status == "running",
        )
        .values(status="queued", owner=None, **({"cut_off": cut_off} if cut_off else {}))
        .returning(runs.c.run_id)
    ).first()
    if done is None:
        return False
    outbox.add_many(connection, [queue_row(run.tenant_id, run.run_id, run.attempt, now)])
    return True


# A process is taken for dead when its heartbeat has stood still for so many seconds. It is written every LEASE / 4.
LEASE = 8.0


class Heartbeat(NamedTuple):
    """What a process instance recorded last to show that it is alive: its own time, which is no other process's."""

    instance: str
    at: int


def heartbeat(connection: Connection, name: str, instance: str, kind: str, now: int) -> None:
    """Say that this process instance is alive. An earlier instance of the same name is gone from then on."""
    updated = connection.execute(
        sa.update(processes).where(processes.c.name == name).values(instance=instance, kind=kind, heartbeat_at=now)
    )
    if updated.rowcount == 0:
        connection.execute(
            sa.insert(processes),
            {"name": name, "instance": instance, "kind": kind, "heartbeat_at": now},
        )


def leave(connection: Connection, instance: str) -> None:
    """Say that this process instance has ended."""
    connection.execute(sa.delete(processes).where(processes.c.instance == instance))


def is_present(connection: Connection, instance: str) -> bool:
    """Whether the instance has a heartbeat, old as it may be: if it is dead, the sweeper gives back its runs."""
    found = connection.execute(sa.select(processes.c.instance).where(processes.c.instance == instance))
    return found.scalar_one_or_none() is not None


def heartbeats(connection: Connection) -> list[Heartbeat]:
    """The heartbeats of all processes that have one, dead or alive."""
    return [Heartbeat(*row) for row in connection.execute(sa.select(processes.c.instance, processes.c.heartbeat_at))]


def orphans(connection: Connection, dead: Sequence[Heartbeat], limit: int) -> list[Run]:
    """Running runs that have no process, or whose process has no heartbeat or still one of the `dead`, of one such
    process after the other, oldest first.
    """
    alive = sa.select(processes.c.instance).where(sa.not_(_is_one_of(dead)))
    statement = (
        sa.select(runs)
        .where(UNFINISHED, runs.c.status == "running", sa.or_(runs.c.owner.is_(None), runs.c.owner.not_in(alive)))
        .order_by(runs.c.owner, runs.c.run_id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [repository.load_run(row) for row in connection.execute(statement).mappings()]


def forget_processes(connection: Connection, dead: Sequence[Heartbeat], now: int) -> int:
    """Drop the records of the dead whose heartbeat is of more than an hour ago; answers how many."""
    old = processes.c.heartbeat_at < now - 3600 * SECOND
    return connection.execute(sa.delete(processes).where(old, _is_one_of(dead))).rowcount


def _is_one_of(dead: Sequence[Heartbeat]) -> sa.ColumnElement[bool]:
    return sa.tuple_(processes.c.instance, processes.c.heartbeat_at).in_(dead)


def held(connection: Connection, instance: str) -> list[Held]:
    """The runs that this instance carries out, as recorded."""
    columns = (runs.c.tenant_id, runs.c.run_id, runs.c.attempt, runs.c.cancel_requested_at.is_not(None))
    mine = (UNFINISHED, runs.c.owner == instance, runs.c.status == "running")
    rows = connection.execute(sa.select(*columns).where(*mine))
    return [Held(*row) for row in rows]
