"""`/v1/agents`: definitions of agents, and their versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy import Connection

from kgents.agents import service
from kgents.agents.model import HIDDEN, Agent, AgentDefinition, Limits, without_secrets
from kgents.agents.tools.toolbox import check_tools
from kgents.api.body import Body
from kgents.api.call import AgentsRead, AgentsWrite, Call
from kgents.api.json_route import JsonRoute
from kgents.api.openai_input import Schema
from kgents.api.paging import Cursor, Limit, Page
from kgents.api.problems import PROBLEMS
from kgents.api.unit import read, write
from kgents.clock import to_rfc3339
from kgents.errors import InvalidRequest, NotFound, Unprocessable
from kgents.ids import is_id

router = APIRouter(tags=["Agents"], route_class=JsonRoute)

AgentRef = Annotated[str, Path(max_length=64, description="The agent's id or name.")]


def _no_id(name: str) -> str:
    if is_id(name, "agt"):
        raise ValueError("it has the form of an agent's id, by which agents are found as well")
    return name


AgentName = Annotated[
    str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"), AfterValidator(_no_id)
]


class BuiltinTool(Body):
    """A tool that kgents brings."""

    type: Literal["builtin"]
    name: Literal["calculator", "clock", "http_get"]


class McpTool(Body):
    """The tools of an MCP server. Its headers may hold secrets: they are never shown again."""

    type: Literal["mcp"]
    name: Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z][a-z0-9_-]*$")]
    url: Annotated[str, Field(max_length=2048, pattern=r"^https?://")]
    headers: Annotated[
        dict[
            Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9-]+$")],
            Annotated[str, Field(max_length=8192, pattern=r"^[\x20-\x7e]*$")],
        ],
        Field(max_length=32, description="Sent to the server; shown as *** in answers."),
    ] = Field(default_factory=dict)


class LimitsBody(Body):
    """What one run may use at most."""

    max_steps: Annotated[int, Field(ge=1, le=100)] = 10
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 120


Model = Annotated[
    str,
    Field(
        min_length=1,
        max_length=256,
        pattern=r"^[^\x00-\x20]+$",
        description="PROVIDER:MODEL",
        examples=["kgents:echo"],
    ),
]
Instructions = Annotated[str, Field(max_length=100_000)]
Description = Annotated[str, Field(max_length=4096)]
Tools = Annotated[
    list[Annotated[BuiltinTool | McpTool, Field(discriminator="type")]],
    Field(fail_fast=True, max_length=32),
]
Temperature = Annotated[float, Field(ge=0, le=2)]


class AgentRequest(Body):
    """An agent to create."""

    name: AgentName
    model: Model
    instructions: Instructions = ""
    description: Description = ""
    tools: Tools = Field(default_factory=list)
    output_schema: Schema | None = None
    temperature: Temperature | None = None
    limits: LimitsBody = Field(default_factory=LimitsBody)

    def definition(self) -> AgentDefinition:
        """The definition."""
        return _definition(self.model_dump(exclude={"name"}), ())


class AgentChange(Body):
    """What to change of an agent; fields that are left out stay as they are."""

    name: AgentName | None = None
    model: Model | None = None
    instructions: Instructions | None = None
    description: Description | None = None
    tools: Tools | None = None
    output_schema: Schema | None = None
    temperature: Temperature | None = None
    limits: LimitsBody | None = None

    def apply(self, before: AgentDefinition) -> AgentDefinition:
        """The definition with the change. A null takes away what may be missing, and leaves the rest as it is."""
        given = self.model_dump(exclude={"name"}, exclude_unset=True)
        optional = ("output_schema", "temperature")
        changes = {name: value for name, value in given.items() if value is not None or name in optional}
        fields = {name: getattr(before, name) for name in AgentDefinition.__dataclass_fields__}
        fields["limits"] = {name: getattr(before.limits, name) for name in Limits.__dataclass_fields__}
        return _definition(fields | changes, before.tools)


def _with_secrets(tool: dict[str, Any], before: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A tool whose headers came back as they are shown, with their values; for its own URL only, not to send them to
    another. Raises Unprocessable where there is no such value.
    """
    hidden = {name for name, value in tool.get("headers", {}).items() if value == HIDDEN}
    if not hidden:
        return tool
    same = [old for old in before if (old["name"], old.get("url")) == (tool["name"], tool["url"])]
    known = same[0].get("headers", {}) if same else {}
    for name in sorted(hidden - set(known)):
        raise Unprocessable(
            f"tools: the header {name} of {tool['name']!r} is {HIDDEN}, which stands for a value that is kept, but "
            "there is none for this tool and URL. Send the value itself.",
            param="tools",
        )
    return {**tool, "headers": tool["headers"] | {name: known[name] for name in hidden}}


def _definition(fields: dict[str, Any], before: Sequence[dict[str, Any]]) -> AgentDefinition:
    """The definition of these fields; `before` are the tools that it has so far."""
    names = [tool["name"] for tool in fields["tools"]]
    if len(set(names)) < len(names):
        raise InvalidRequest("Two tools have the same name.", param="tools")
    tools = tuple(_with_secrets(tool, before) for tool in fields["tools"])
    return AgentDefinition(**{**fields, "tools": tools, "limits": Limits(**fields["limits"])})


class AgentDocument(BaseModel):
    """An agent at a version."""

    object: Literal["agent"] = "agent"
    id: str
    name: str
    version: int
    model: str
    instructions: str
    description: str
    tools: list[dict[str, Any]]
    output_schema: dict[str, Any] | None
    temperature: float | None
    limits: LimitsBody
    created_at: str
    updated_at: str


def show(agent: Agent) -> AgentDocument:
    """An agent as the API shows it."""
    definition = agent.definition
    return AgentDocument(
        id=agent.agent_id,
        name=agent.name,
        version=agent.version,
        model=definition.model,
        instructions=definition.instructions,
        description=definition.description,
        tools=[without_secrets(tool) for tool in definition.tools],
        output_schema=definition.output_schema,
        temperature=definition.temperature,
        limits=LimitsBody(
            max_steps=definition.limits.max_steps,
            max_output_tokens=definition.limits.max_output_tokens,
            timeout_seconds=definition.limits.timeout_seconds,
        ),
        created_at=to_rfc3339(agent.created_at),
        updated_at=to_rfc3339(agent.updated_at),
    )


def _check(call: Call, definition: AgentDefinition) -> None:
    """Raise Unprocessable for a model that is not configured, or a tool that can't be used."""
    call.services.registry.check(definition.model)
    check_tools(definition.tools, call.services.settings)


def _audit(connection: Connection, call: Call, agent: Agent, verb: str) -> Agent:
    detail = {"name": agent.name, "version": agent.version}
    call.services.audit.record(connection, call.tenant_id, call.actor, f"agent.{verb}", "agent", agent.agent_id, detail)
    return agent


@router.post(
    "/v1/agents",
    operation_id="create_agent",
    summary="Create an agent",
    status_code=201,
    response_model=AgentDocument,
    responses=PROBLEMS,
)
async def create_agent(call: AgentsWrite, body: AgentRequest) -> Response:
    """A new agent, at version 1."""
    definition = body.definition()
    _check(call, definition)

    def unit(connection: Connection) -> Agent:
        agent = service.create_agent(connection, call.tenant_id, body.name, definition, call.now())
        return _audit(connection, call, agent, "create")

    return await write(call, unit, show, status=201)


@router.get(
    "/v1/agents",
    operation_id="list_agents",
    summary="List agents",
    response_model=Page[AgentDocument],
    responses=PROBLEMS,
)
async def list_agents(call: AgentsRead, limit: Limit = 20, after: Cursor = "") -> Page[AgentDocument]:
    """The tenant's agents in the order of their creation."""
    found, more = await read(call, lambda connection: service.list_agents(connection, call.tenant_id, after, limit))
    return Page.of([show(agent) for agent in found], has_more=more)


@router.get(
    "/v1/agents/{agent}",
    operation_id="get_agent",
    summary="Get an agent",
    response_model=AgentDocument,
    responses=PROBLEMS,
)
async def get_agent(call: AgentsRead, agent: AgentRef) -> AgentDocument:
    """An agent at its latest version."""
    return show(await read(call, lambda connection: service.get_agent(connection, call.tenant_id, agent)))


@router.patch(
    "/v1/agents/{agent}",
    operation_id="update_agent",
    summary="Update an agent",
    response_model=AgentDocument,
    responses=PROBLEMS,
)
async def update_agent(call: AgentsWrite, agent: AgentRef, body: AgentChange) -> Response:
    """A new version of the agent, for runs that start from now on (in other processes, within a second)."""
    known: set[str] = {agent}

    def change(definition: AgentDefinition) -> AgentDefinition:
        changed = body.apply(definition)
        _check(call, changed)
        return changed

    def unit(connection: Connection) -> Agent:
        before = service.get_agent(connection, call.tenant_id, agent)
        known.update((before.agent_id, before.name))
        updated = service.update_agent(connection, call.tenant_id, before.agent_id, body.name, change, call.now())
        return _audit(connection, call, updated, "update")

    response = await write(call, unit, show)
    call.services.catalog.forget(call.tenant_id, known)
    return response


@router.delete(
    "/v1/agents/{agent}",
    operation_id="delete_agent",
    summary="Delete an agent",
    response_model=AgentDocument,
    responses=PROBLEMS,
)
async def delete_agent(call: AgentsWrite, agent: AgentRef) -> Response:
    """Delete the agent. Its name is free again; its runs and their usage stay."""
    known: set[str] = {agent}

    def unit(connection: Connection) -> Agent:
        deleted = service.delete_agent(connection, call.tenant_id, agent, call.now())
        known.update((deleted.agent_id, deleted.name))
        return _audit(connection, call, deleted, "delete")

    response = await write(call, unit, show)
    call.services.catalog.forget(call.tenant_id, known)
    return response


@router.get(
    "/v1/agents/{agent}/versions",
    operation_id="list_agent_versions",
    summary="List an agent's versions",
    response_model=Page[AgentDocument],
    responses=PROBLEMS,
)
async def list_agent_versions(
    call: AgentsRead,
    agent: AgentRef,
    limit: Limit = 20,
    after: Annotated[int, Query(ge=0, lt=2**31, description="The `last_id` of the page before.")] = 0,
) -> Page[AgentDocument]:
    """The agent's versions, oldest first; `after` is a version."""

    def unit(connection: Connection) -> tuple[list[Agent], bool]:
        found = service.get_agent(connection, call.tenant_id, agent)
        return service.versions(connection, call.tenant_id, found.agent_id, after, limit)

    found, more = await read(call, unit)
    page: Page[AgentDocument] = Page.of([show(version) for version in found], has_more=more)
    page.last_id = str(page.data[-1].version) if page.data else None
    return page


@router.get(
    "/v1/agents/{agent}/versions/{version}",
    operation_id="get_agent_version",
    summary="Get a version of an agent",
    response_model=AgentDocument,
    responses=PROBLEMS,
)
async def get_agent_version(
    call: AgentsRead, agent: AgentRef, version: Annotated[int, Path(ge=1, lt=2**31)]
) -> AgentDocument:
    """The agent as it was at a version."""

    def unit(connection: Connection) -> Agent:
        current = service.get_agent(connection, call.tenant_id, agent)
        found, _ = service.versions(connection, call.tenant_id, current.agent_id, version - 1, 1)
        if not found or found[0].version != version:
            raise NotFound(f"The agent {current.name!r} has no version {version}; its latest is {current.version}.")
        return found[0]

    return show(await read(call, unit))
