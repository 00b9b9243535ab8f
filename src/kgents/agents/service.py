"""Agents and sessions: decisions about their definitions and their lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlalchemy import Connection, RowMapping
from sqlalchemy.exc import IntegrityError

from kgents.agents import repository
from kgents.agents.ledger_ops import no_session
from kgents.agents.model import Agent, AgentDefinition, Session
from kgents.errors import Conflict, NotFound
from kgents.ids import is_id, new_id
from kgents.store import changes

MESSAGES = 50  # that are read at a time: each may be nearly as large as a request's body


def create_agent(connection: Connection, tenant_id: str, name: str, definition: AgentDefinition, now: int) -> Agent:
    """A new agent at version 1. Raises Conflict when the tenant has an agent of this name."""
    agent = Agent(new_id("agt"), tenant_id, name, 1, definition, now, now)
    _save(connection, agent, lambda: repository.insert_agent(connection, agent))
    changes.announce(connection, tenant_id, "agent", name, now)
    return agent


def _save(connection: Connection, agent: Agent, write: object) -> None:
    assert callable(write)
    try:
        with connection.begin_nested():
            write()
    except IntegrityError as error:
        raise Conflict(
            f"There is already an agent named {agent.name!r}. Choose another name, or update that agent.",
            code="agent-name-taken",
        ) from error


def get_agent(connection: Connection, tenant_id: str, agent: str) -> Agent:
    """The tenant's agent by id or by name. Raises NotFound."""
    found = None
    if is_id(agent, "agt"):
        found = repository.agent_by(connection, tenant_id, agent_id=agent)
    elif agent.isprintable():  # as every name is; PostgreSQL takes no NUL
        found = repository.agent_by(connection, tenant_id, name=agent)
    if found is None:
        raise NotFound(
            f"There is no agent {agent!r}. List yours with GET /v1/agents, or create it with POST /v1/agents.",
            code="agent-not-found",
        )
    return found


def list_agents(connection: Connection, tenant_id: str, after: str, limit: int) -> tuple[list[Agent], bool]:
    """The tenant's agents in the order of creation, after the given id, and whether there are more."""
    return repository.list_agents(connection, tenant_id, after, limit)


def agent_names(connection: Connection, tenant_id: str, limit: int) -> list[tuple[str, int]]:
    """The names of the tenant's agents, and when they were created, in the order of creation."""
    return repository.agent_names(connection, tenant_id, limit)


def versions(connection: Connection, tenant_id: str, agent_id: str, after: int, limit: int) -> tuple[list[Agent], bool]:
    """The versions of an agent, oldest first, after the given one, and whether there are more."""
    return repository.versions(connection, tenant_id, agent_id, after, limit)


def update_agent(
    connection: Connection,
    tenant_id: str,
    agent: str,
    name: str | None,
    change: Callable[[AgentDefinition], AgentDefinition],
    now: int,
) -> Agent:
    """The agent with a new name, or at a new version with what `change` makes of its definition.

    Changes at the same time are made one after the other. Runs keep the version they started with. Raises NotFound,
    Conflict for a name that is taken, and what `change` raises.
    """
    agent_id = get_agent(connection, tenant_id, agent).agent_id
    repository.lock_agent(connection, tenant_id, agent_id)
    found = get_agent(connection, tenant_id, agent_id)
    definition = change(found.definition)
    changed = definition != found.definition
    updated = Agent(
        found.agent_id,
        tenant_id,
        name or found.name,
        found.version + int(changed),
        definition,
        found.created_at,
        now,
    )
    if changed:
        repository.insert_version(connection, updated)
    _save(connection, updated, lambda: repository.update_agent(connection, updated))
    for stale in {found.name, updated.name, found.agent_id}:
        changes.announce(connection, tenant_id, "agent", stale, now)
    return updated


def delete_agent(connection: Connection, tenant_id: str, agent: str, now: int) -> Agent:
    """Delete the agent; its name is free again. Runs that have started end as they would. Raises NotFound."""
    found = get_agent(connection, tenant_id, agent)
    repository.delete_agent(connection, tenant_id, found.agent_id, now)
    for stale in (found.name, found.agent_id):
        changes.announce(connection, tenant_id, "agent", stale, now)
    return found


def create_session(connection: Connection, tenant_id: str, agent: str, metadata: dict[str, str], now: int) -> Session:
    """A new, empty session with an agent. Raises NotFound when there is no such agent."""
    found = get_agent(connection, tenant_id, agent)
    session = Session(new_id("ses"), tenant_id, found.agent_id, metadata, now, now)
    repository.insert_session(connection, session)
    return session


def get_session(connection: Connection, tenant_id: str, session_id: str) -> Session:
    """The tenant's session. Raises NotFound."""
    session = repository.session_by_id(connection, tenant_id, session_id)
    if session is None:
        raise no_session(session_id)
    return session


def list_sessions(connection: Connection, tenant_id: str, after: str, limit: int, agent_id: str = "") -> list[Session]:
    """The tenant's sessions (with an agent, if given) in the order of creation, after the given id."""
    return repository.list_sessions(connection, tenant_id, after, limit, agent_id)


def session_messages(connection: Connection, tenant_id: str, session_id: str, run_id: str) -> Iterator[RowMapping]:
    """What was said in a session from a run on, in order: rows of run_id, position, message (JSON text) and
    created_at, read a few at a time. Raises NotFound.
    """
    get_session(connection, tenant_id, session_id)
    after = (run_id, -1)
    while rows := repository.session_messages(connection, tenant_id, session_id, after, MESSAGES):
        yield from rows
        after = (rows[-1]["run_id"], rows[-1]["position"])


def delete_session(connection: Connection, tenant_id: str, session_id: str, now: int) -> Session:
    """Delete the session with its messages. Raises NotFound, and Conflict while it has a run that is not finished."""
    repository.live_sessions(connection, [tenant_id], [session_id])  # holds it: no run starts meanwhile
    session = get_session(connection, tenant_id, session_id)
    if repository.busy_sessions(connection, [tenant_id], [session_id]):
        raise Conflict(
            f"Session {session_id} has a run that is not finished. Wait for it or cancel it first.",
            code="session-busy",
        )
    repository.delete_session(connection, tenant_id, session_id, now)
    return session
