"""SQL of agents, sessions, runs, steps and messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping

from kgents.agents.model import Agent, AgentDefinition, CutOff, Limits, Output, Run, Session, ToolCall
from kgents.store.bulk import ManyRows, insert_many
from kgents.store.parts import part_of
from kgents.store.tables import METERS, agent_versions, agents, messages, run_steps, runs, sessions
from kgents.usage.model import Amounts


def dump_definition(definition: AgentDefinition) -> str:
    """The JSON text of a definition."""
    return orjson.dumps(asdict(definition)).decode()


def load_definition(value: str) -> AgentDefinition:
    """The definition of its JSON text."""
    data = orjson.loads(value)
    return AgentDefinition(**{**data, "tools": tuple(data["tools"]), "limits": Limits(**data["limits"])})


def _agent(row: RowMapping) -> Agent:
    return Agent(
        row["agent_id"],
        row["tenant_id"],
        row["name"],
        row["version"],
        load_definition(row["definition"]),
        row["created_at"],
        row["updated_at"],
    )


_AGENT = (
    sa.select(agents, agent_versions.c.definition)
    .join(
        agent_versions,
        sa.and_(agent_versions.c.agent_id == agents.c.agent_id, agent_versions.c.version == agents.c.version),
    )
    .where(agents.c.deleted_at.is_(None))
)


def insert_agent(connection: Connection, agent: Agent) -> None:
    """Insert an agent with its first version. A name that is taken is an IntegrityError."""
    connection.execute(
        sa.insert(agents),
        {
            "agent_id": agent.agent_id,
            "tenant_id": agent.tenant_id,
            "name": agent.name,
            "version": agent.version,
            "created_at": agent.created_at,
            "updated_at": agent.updated_at,
        },
    )
    insert_version(connection, agent)


def insert_version(connection: Connection, agent: Agent) -> None:
    """Insert the definition of an agent's version."""
    connection.execute(
        sa.insert(agent_versions),
        {
            "tenant_id": agent.tenant_id,
            "agent_id": agent.agent_id,
            "version": agent.version,
            "definition": dump_definition(agent.definition),
            "created_at": agent.updated_at,
        },
    )


def update_agent(connection: Connection, agent: Agent) -> None:
    """Point the agent at its new version."""
    connection.execute(
        sa.update(agents)
        .where(agents.c.tenant_id == agent.tenant_id, agents.c.agent_id == agent.agent_id)
        .values(name=agent.name, version=agent.version, updated_at=agent.updated_at)
    )


def delete_agent(connection: Connection, tenant_id: str, agent_id: str, now: int) -> None:
    """Mark as deleted; its runs and versions stay, since usage refers to them."""
    connection.execute(
        sa.update(agents)
        .where(agents.c.tenant_id == tenant_id, agents.c.agent_id == agent_id)
        .values(deleted_at=now, updated_at=now)
    )


def agent_by(connection: Connection, tenant_id: str, *, agent_id: str = "", name: str = "") -> Agent | None:
    """The agent of this id or name at its latest version."""
    which = agents.c.agent_id == agent_id if agent_id else agents.c.name == name
    row = connection.execute(_AGENT.where(agents.c.tenant_id == tenant_id, which)).mappings().first()
    return _agent(row) if row else None


def lock_agent(connection: Connection, tenant_id: str, agent_id: str) -> None:
    """Hold the agent's row to the end of the transaction, so that two updates make two versions."""
    connection.execute(
        sa.select(agents.c.agent_id)
        .where(agents.c.tenant_id == tenant_id, agents.c.agent_id == agent_id)
        .with_for_update()
    )


def list_agents(connection: Connection, tenant_id: str, after: str, limit: int) -> tuple[list[Agent], bool]:
    """Agents in the order of creation, after the given id, and whether there are more."""
    size = sa.func.length(agent_versions.c.definition)
    keys = _AGENT.with_only_columns(agents.c.agent_id, size).where(
        agents.c.tenant_id == tenant_id, agents.c.agent_id > after
    )
    part, more = part_of(connection, keys.order_by(agents.c.agent_id), limit)
    if not part:
        return [], more
    statement = _AGENT.where(agents.c.tenant_id == tenant_id, agents.c.agent_id.in_(part))
    return [_agent(row) for row in connection.execute(statement.order_by(agents.c.agent_id)).mappings()], more


def agent_names(connection: Connection, tenant_id: str, limit: int) -> list[tuple[str, int]]:
    """The names of agents, and when they were created, in the order of creation."""
    statement = sa.select(agents.c.name, agents.c.created_at).where(
        agents.c.tenant_id == tenant_id, agents.c.deleted_at.is_(None)
    )
    rows = connection.execute(statement.order_by(agents.c.agent_id).limit(limit))
    return [(row.name, row.created_at) for row in rows]


def versions(connection: Connection, tenant_id: str, agent_id: str, after: int, limit: int) -> tuple[list[Agent], bool]:
    """The versions of an agent (deleted or not) after that one, oldest first, and whether there are more."""
    mine = sa.and_(agent_versions.c.tenant_id == tenant_id, agent_versions.c.agent_id == agent_id)
    size = sa.func.length(agent_versions.c.definition)
    keys = sa.select(agent_versions.c.version, size).where(mine, agent_versions.c.version > after)
    part, more = part_of(connection, keys.order_by(agent_versions.c.version), limit)
    statement = (
        sa.select(
            agents.c.agent_id,
            agents.c.tenant_id,
            agents.c.name,
            agent_versions.c.version,
            agent_versions.c.definition,
            agents.c.created_at,
            agent_versions.c.created_at.label("updated_at"),
        )
        .join(agents, agents.c.agent_id == agent_versions.c.agent_id)
        .where(mine, agent_versions.c.version.in_(part))
        .order_by(agent_versions.c.version)
    )
    return [_agent(row) for row in connection.execute(statement).mappings()] if part else [], more


def definition_at(connection: Connection, tenant_id: str, agent_id: str, version: int) -> AgentDefinition:
    """The definition that a run started with."""
    value = connection.execute(
        sa.select(agent_versions.c.definition).where(
            agent_versions.c.tenant_id == tenant_id,
            agent_versions.c.agent_id == agent_id,
            agent_versions.c.version == version,
        )
    ).scalar_one()
    return load_definition(value)


def _session(row: RowMapping) -> Session:
    return Session(
        row["session_id"],
        row["tenant_id"],
        row["agent_id"],
        orjson.loads(row["metadata"]),
        row["created_at"],
        row["updated_at"],
    )


def insert_session(connection: Connection, session: Session) -> None:
    """Insert a session."""
    connection.execute(
        sa.insert(sessions),
        {
            "session_id": session.session_id,
            "tenant_id": session.tenant_id,
            "agent_id": session.agent_id,
            "metadata": orjson.dumps(session.metadata).decode(),
            "created_at": session.created_at,
            "updated_at": session.updated_at,
        },
    )


def session_by_id(connection: Connection, tenant_id: str, session_id: str) -> Session | None:
    """The session, unless it was deleted."""
    row = (
        connection.execute(
            sa.select(sessions).where(
                sessions.c.tenant_id == tenant_id,
                sessions.c.session_id == session_id,
                sessions.c.deleted_at.is_(None),
            )
        )
        .mappings()
        .first()
    )
    return _session(row) if row else None


def list_sessions(connection: Connection, tenant_id: str, after: str, limit: int, agent_id: str = "") -> list[Session]:
    """Sessions in the order of creation, after the given id."""
    statement = sa.select(sessions).where(
        sessions.c.tenant_id == tenant_id, sessions.c.session_id > after, sessions.c.deleted_at.is_(None)
    )
    if agent_id:
        statement = statement.where(sessions.c.agent_id == agent_id)
    rows = connection.execute(statement.order_by(sessions.c.session_id).limit(limit)).mappings()
    return [_session(row) for row in rows]


def delete_session(connection: Connection, tenant_id: str, session_id: str, now: int) -> None:
    """Mark the session as deleted and remove its messages' text; its runs stay, since usage refers to them."""
    connection.execute(
        sa.update(sessions)
        .where(sessions.c.tenant_id == tenant_id, sessions.c.session_id == session_id)
        .values(deleted_at=now, updated_at=now, metadata="{}")
    )
    connection.execute(
        sa.delete(messages).where(messages.c.tenant_id == tenant_id, messages.c.session_id == session_id)
    )
    erased = sa.select(runs.c.run_id).where(runs.c.tenant_id == tenant_id, runs.c.session_id == session_id)
    connection.execute(sa.delete(run_steps).where(run_steps.c.tenant_id == tenant_id, run_steps.c.run_id.in_(erased)))
    connection.execute(
        sa.update(runs)
        .where(runs.c.tenant_id == tenant_id, runs.c.session_id == session_id)
        .values(input="{}", output=None)
    )


def erase_run(connection: Connection, tenant_id: str, run_id: str) -> None:
    """Remove the text of one run."""
    for table in (messages, run_steps):
        connection.execute(sa.delete(table).where(table.c.tenant_id == tenant_id, table.c.run_id == run_id))
    connection.execute(
        sa.update(runs).where(runs.c.tenant_id == tenant_id, runs.c.run_id == run_id).values(input="{}", output=None)
    )


UNFINISHED = sa.text("runs.status IN ('queued', 'running')")
"""The condition of the index on what is not finished, in its own words: with parameters no database would use it."""
_NOT_COMPLETED = sa.text("runs.status <> 'completed'")

_RUN_COLUMNS = [column for column in runs.c if not column.name.endswith("_reserved")]


def _run_row(run: Run) -> tuple[Any, ...]:
    """A run as a row, in the order of the table's columns."""
    return (
        run.run_id,
        run.tenant_id,
        run.agent_id,
        run.agent_version,
        run.session_id,
        run.previous_run_id,
        run.kind,
        run.mode,
        run.status,
        orjson.dumps(run.input).decode(),
        dump_output(run.output),
        orjson.dumps(run.error).decode() if run.error else None,
        run.attempt,
        run.owner,
        run.cancel_requested_at,
        run.period,
        *run.reserved,
        run.input_tokens,
        run.output_tokens,
        run.tool_calls,
        run.last_event,
        run.request_id,
        run.traceparent,
        run.created_at,
        run.started_at,
        run.finished_at,
        dump_cut_off(run.cut_off),
    )


def dump_output(output: Output | None) -> str | None:
    """The JSON text of an output."""
    return orjson.dumps(output).decode() if output else None


def dump_cut_off(cut_off: CutOff | None) -> str | None:
    """The JSON text of what a step had used."""
    return orjson.dumps(cut_off).decode() if cut_off else None


def load_cut_off(value: str | None) -> CutOff | None:
    """What a step had used, of its JSON text."""
    if value is None:
        return None
    data = orjson.loads(value)
    return CutOff(**{**data, "used": tuple(data["used"])})


def load_run(row: RowMapping) -> Run:
    """A run of its row."""
    values = {column.name: row[column.name] for column in _RUN_COLUMNS}
    values["input"] = orjson.loads(row["input"])
    if row["output"]:
        output = orjson.loads(row["output"])
        calls = tuple(ToolCall(**call) for call in output["tool_calls"])
        values["output"] = Output(output["text"], calls, output["finish_reason"])
    values["error"] = orjson.loads(row["error"]) if row["error"] else None
    values["cut_off"] = load_cut_off(row["cut_off"])
    return Run(**values, reserved=tuple(row[f"{meter}_reserved"] for meter in METERS))


_INSERT_RUNS = insert_many(runs)
_INSERT_STEPS = insert_many(run_steps)
_INSERT_MESSAGES = insert_many(messages)

_COUNTS = {
    "period": sa.bindparam("now_period"),
    **{f"{meter}_reserved": sa.bindparam(f"now_{meter}_reserved") for meter in METERS},
    **{name: runs.c[name] + sa.bindparam(f"more_{name}") for name in METERS[1:]},
}
_END: dict[str, Any] = {
    name: sa.bindparam(f"now_{name}") for name in ("status", "output", "error", "last_event", "finished_at")
}
_THE_RUN = (runs.c.tenant_id == sa.bindparam("of_tenant_id"), runs.c.run_id == sa.bindparam("of_run_id"))
_COUNT_NAMES = [
    *("of_tenant_id", "of_run_id", "now_period"),
    *(f"now_{meter}_reserved" for meter in METERS),
    *(f"more_{name}" for name in METERS[1:]),
]
_UPDATE_RUNS = ManyRows(sa.update(runs).where(*_THE_RUN).values(**_COUNTS), _COUNT_NAMES)
_END_RUNS = ManyRows(
    sa.update(runs).where(*_THE_RUN).values(**_COUNTS, **_END, owner=sa.null()),
    [*_COUNT_NAMES, *(f"now_{name}" for name in _END)],
)


def insert_runs(connection: Connection, new: Sequence[Run]) -> None:
    """Insert runs."""
    _INSERT_RUNS(connection, [_run_row(run) for run in new])


class Counts(NamedTuple):
    """What a step changes of its run: the month that its reservation is of, the reservation, and what it used."""

    tenant_id: str
    run_id: str
    period: str
    reserved: Amounts
    used: Amounts


class End(NamedTuple):
    """What the last step changes of its run, beside the counts."""

    status: str
    output: Output | None
    error: dict[str, Any] | None
    last_event: int | None
    finished_at: int


def update_runs(connection: Connection, steps: Sequence[Counts]) -> None:
    """Change the counts of runs that go on."""
    _UPDATE_RUNS(connection, [_counts_row(counts) for counts in steps])


def end_runs(connection: Connection, ends: Sequence[tuple[Counts, End]]) -> None:
    """Change the counts of runs, and end them."""
    _END_RUNS(
        connection,
        [
            (
                *_counts_row(counts),
                end.status,
                dump_output(end.output),
                orjson.dumps(end.error).decode() if end.error else None,
                end.last_event,
                end.finished_at,
            )
            for counts, end in ends
        ],
    )


def _counts_row(counts: Counts) -> tuple[Any, ...]:
    return (counts.tenant_id, counts.run_id, counts.period, *counts.reserved, *counts.used[1:])


def insert_steps(connection: Connection, rows: Sequence[tuple[str, str, int, str, int]]) -> None:
    """Insert what steps did: tenant id, run id, step, message as JSON, time."""
    _INSERT_STEPS(connection, rows)


def insert_messages(connection: Connection, rows: Sequence[tuple[str, str | None, str, int, str, int]]) -> None:
    """Insert what was said: tenant id, session id, run id, position, message as JSON, time."""
    _INSERT_MESSAGES(connection, rows)


def run_by_id(connection: Connection, tenant_id: str, run_id: str) -> Run | None:
    """The tenant's run of this id."""
    row = (
        connection.execute(sa.select(runs).where(runs.c.tenant_id == tenant_id, runs.c.run_id == run_id))
        .mappings()
        .first()
    )
    return load_run(row) if row else None


def list_runs(
    connection: Connection, tenant_id: str, after: str, limit: int, *, session_id: str = "", status: str = ""
) -> tuple[list[Run], bool]:
    """Runs, newest first, before the given id, and whether there are more; without what they were asked, which may be
    large.
    """
    keys = sa.select(runs.c.run_id, sa.func.length(runs.c.output)).where(runs.c.tenant_id == tenant_id)
    if after:
        keys = keys.where(runs.c.run_id < after)
    if session_id:
        keys = keys.where(runs.c.session_id == session_id)
    if status:
        keys = keys.where(runs.c.status == status)
    if status and status != "completed":
        keys = keys.where(_NOT_COMPLETED)
    part, more = part_of(connection, keys.order_by(runs.c.run_id.desc()), limit)
    if not part:
        return [], more
    columns = [column for column in runs.c if column is not runs.c.input]
    statement = sa.select(*columns, sa.literal("{}").label("input")).where(
        runs.c.tenant_id == tenant_id, runs.c.run_id.in_(part)
    )
    rows = connection.execute(statement.order_by(runs.c.run_id.desc())).mappings()
    return [load_run(row) for row in rows], more


def busy_sessions(connection: Connection, tenant_ids: Iterable[str], session_ids: Iterable[str]) -> set[str]:
    """Those of the tenants' sessions that have a run which is not finished."""
    statement = sa.select(runs.c.session_id).where(
        runs.c.tenant_id.in_(list(tenant_ids)),
        runs.c.session_id.in_(list(session_ids)),
        UNFINISHED,
    )
    return set(connection.execute(statement).scalars())


def live_sessions(
    connection: Connection, tenant_ids: Iterable[str], session_ids: Iterable[str]
) -> set[tuple[str, str]]:
    """Those of the tenants' sessions that are there, as (tenant id, session id), held to the end of the transaction.

    Held without their keys, which those who record a message of the session share.
    """
    statement = (
        sa.select(sessions.c.tenant_id, sessions.c.session_id)
        .where(
            sessions.c.tenant_id.in_(list(tenant_ids)),
            sessions.c.session_id.in_(list(session_ids)),
            sessions.c.deleted_at.is_(None),
        )
        .order_by(sessions.c.session_id)
        .with_for_update(key_share=True)
    )
    return {(row[0], row[1]) for row in connection.execute(statement)}


def steps_of(connection: Connection, tenant_id: str, run_id: str) -> list[str]:
    """The recorded messages of a run's steps, in order, as JSON text."""
    return list(
        connection.execute(
            sa.select(run_steps.c.message)
            .where(run_steps.c.tenant_id == tenant_id, run_steps.c.run_id == run_id)
            .order_by(run_steps.c.step)
        ).scalars()
    )


def session_messages(
    connection: Connection, tenant_id: str, session_id: str, after: tuple[str, int] = ("", 0), limit: int | None = None
) -> list[RowMapping]:
    """A session's messages in order, `after` a run's at a position: rows of run_id, position, message (JSON text) and
    created_at.
    """
    place = sa.tuple_(messages.c.run_id, messages.c.position)
    statement = (
        sa.select(messages.c.run_id, messages.c.position, messages.c.message, messages.c.created_at)
        .where(messages.c.tenant_id == tenant_id, messages.c.session_id == session_id, place > after)
        .order_by(messages.c.run_id, messages.c.position)
        .limit(limit)
    )
    return list(connection.execute(statement).mappings())


def chain_messages(connection: Connection, tenant_id: str, run_id: str) -> list[str]:
    """The messages of a run and of the runs that it follows on (`previous_run_id`), oldest first, as JSON text."""
    chain = (
        sa.select(runs.c.run_id, runs.c.previous_run_id, sa.literal(0).label("depth"))
        .where(runs.c.tenant_id == tenant_id, runs.c.run_id == run_id)
        .cte("chain", recursive=True)
    )
    chain = chain.union_all(
        sa.select(runs.c.run_id, runs.c.previous_run_id, chain.c.depth + 1)
        .join(chain, runs.c.run_id == chain.c.previous_run_id)
        .where(runs.c.tenant_id == tenant_id, chain.c.depth < 1000)
    )
    statement = (
        sa.select(messages.c.message)
        .join(chain, messages.c.run_id == chain.c.run_id)
        .where(messages.c.tenant_id == tenant_id)
        .order_by(chain.c.depth.desc(), messages.c.position)
    )
    return list(connection.execute(statement).scalars())
