"""`/v1/sessions`: conversations with agents."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from kgents.agents import service
from kgents.agents.conversation import load_message, public_messages
from kgents.agents.model import Session
from kgents.api.body import Body
from kgents.api.call import SessionsRead, SessionsWrite
from kgents.api.json_route import JsonRoute
from kgents.api.paging import Cursor, Limit, Page, page_of
from kgents.api.problems import PROBLEMS
from kgents.api.unit import read, write
from kgents.clock import to_rfc3339

router = APIRouter(tags=["Sessions"], route_class=JsonRoute)

SessionId = Annotated[str, Path(max_length=64, description="The session's id.")]
Text = Annotated[str, Field(max_length=512)]


class SessionRequest(Body):
    """A session to begin."""

    agent: Annotated[str, Field(min_length=1, max_length=64, description="The agent's id or name.", examples=["echo"])]
    metadata: Annotated[dict[Annotated[str, Field(max_length=64)], Text], Field(max_length=16)] = Field(
        default_factory=dict
    )


class SessionDocument(BaseModel):
    """A session."""

    object: Literal["session"] = "session"
    id: str
    agent_id: str
    metadata: dict[str, str]
    created_at: str


class MessageDocument(BaseModel):
    """A message of a session. `content` is text; calls of tools stand in `tool_calls`."""

    object: Literal["message"] = "message"
    id: str
    run_id: str
    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    created_at: str


def show(session: Session) -> SessionDocument:
    """A session as the API shows it."""
    return SessionDocument(
        id=session.session_id,
        agent_id=session.agent_id,
        metadata=session.metadata,
        created_at=to_rfc3339(session.created_at),
    )


@router.post(
    "/v1/sessions",
    operation_id="create_session",
    summary="Create a session",
    status_code=201,
    response_model=SessionDocument,
    responses=PROBLEMS,
)
async def create_session(call: SessionsWrite, body: SessionRequest) -> Response:
    """Begin a conversation with an agent."""
    return await write(
        call,
        lambda connection: service.create_session(connection, call.tenant_id, body.agent, body.metadata, call.now()),
        show,
        status=201,
    )


@router.get(
    "/v1/sessions",
    operation_id="list_sessions",
    summary="List sessions",
    response_model=Page[SessionDocument],
    responses=PROBLEMS,
)
async def list_sessions(
    call: SessionsRead,
    limit: Limit = 20,
    after: Cursor = "",
    agent_id: Annotated[str, Query(max_length=64, description="Only sessions with this agent.")] = "",
) -> Page[SessionDocument]:
    """The tenant's sessions in the order of their creation."""
    found = await read(
        call, lambda connection: service.list_sessions(connection, call.tenant_id, after, limit + 1, agent_id)
    )
    return page_of([show(session) for session in found], limit)


@router.get(
    "/v1/sessions/{session_id}",
    operation_id="get_session",
    summary="Get a session",
    response_model=SessionDocument,
    responses=PROBLEMS,
)
async def get_session(call: SessionsRead, session_id: SessionId) -> SessionDocument:
    """A session."""
    return show(await read(call, lambda connection: service.get_session(connection, call.tenant_id, session_id)))


@router.delete(
    "/v1/sessions/{session_id}",
    operation_id="delete_session",
    summary="Delete a session",
    response_model=SessionDocument,
    responses=PROBLEMS,
)
async def delete_session(call: SessionsWrite, session_id: SessionId) -> Response:
    """Delete a session and everything that was said in it. The usage of its runs stays."""

    def unit(connection: Connection) -> Session:
        session = service.delete_session(connection, call.tenant_id, session_id, call.now())
        call.services.audit.record(connection, call.tenant_id, call.actor, "session.delete", "session", session_id)
        return session

    return await write(call, unit, show)


@router.get(
    "/v1/sessions/{session_id}/messages",
    operation_id="list_messages",
    summary="List a session's messages",
    response_model=Page[MessageDocument],
    responses=PROBLEMS,
)
async def list_messages(
    call: SessionsRead, session_id: SessionId, limit: Limit = 20, after: Cursor = ""
) -> Page[MessageDocument]:
    """What was said in the session, oldest first."""

    def unit(connection: Connection) -> list[MessageDocument]:
        shown: list[MessageDocument] = []
        for row in service.session_messages(connection, call.tenant_id, session_id, after.partition(":")[0]):
            for index, message in enumerate(public_messages(load_message(row["message"]))):
                id_ = f"{row['run_id']}:{row['position']:04d}:{index:04d}"
                if id_ > after:
                    shown.append(
                        MessageDocument(
                            id=id_, run_id=row["run_id"], created_at=to_rfc3339(row["created_at"]), **message
                        )
                    )
                if len(shown) > limit:
                    return shown
        return shown

    return page_of(await read(call, unit), limit)
