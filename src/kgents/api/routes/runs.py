"""`/v1/runs` and `/v1/sessions/{id}/runs`: start, read, cancel and follow runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from kgents.agents import runs, signals
from kgents.agents.events import RunEvent
from kgents.agents.model import Overrides, Run, RunMode, RunStatus
from kgents.agents.runner import end_event_of, output_document
from kgents.api import sse
from kgents.api.body import Body
from kgents.api.call import Call, RunsRead, RunsWrite
from kgents.api.follow import live, recorded
from kgents.api.json_route import JsonRoute
from kgents.api.launch import Ask, Launched, launch
from kgents.api.openai_input import ChatMessage, Schema, refuse_unsupported
from kgents.api.paging import Cursor, Limit, Page
from kgents.api.problems import PROBLEMS, render
from kgents.api.unit import read, write
from kgents.clock import to_rfc3339
from kgents.errors import InvalidRequest, KgentsError, Unauthenticated

router = APIRouter(tags=["Runs"], route_class=JsonRoute)

RunId = Annotated[str, Path(max_length=64, description="The run's id.")]


class RunRequest(Body):
    """What to ask of the session's agent."""

    input: Annotated[
        Annotated[str, Field(min_length=1)]
        | Annotated[list[ChatMessage], Field(fail_fast=True, min_length=1, max_length=256)],
        Field(examples=["Hello"]),
    ]
    mode: Annotated[
        RunMode,
        Field(description="wait: answer when it has ended; stream: answer with its events; background: answer now."),
    ] = "wait"
    max_output_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    output_schema: Schema | None = None

    def ask(self, session_id: str) -> Ask:
        """The request as the launcher takes it."""
        if isinstance(self.input, str):
            messages: list[dict[str, Any]] = [{"role": "user", "content": self.input}]
        else:
            refuse_unsupported(self.input)
            messages = [message.plain() for message in self.input]
        return Ask(
            kind="run",
            mode=self.mode,
            messages=messages,
            overrides=Overrides(
                max_output_tokens=self.max_output_tokens,
                temperature=self.temperature,
                output_schema=self.output_schema,
            ),
            session_id=session_id,
        )


class RunToolCall(BaseModel):
    """A call of one of the caller's tools."""

    id: str
    name: str
    arguments: str


class RunOutput(BaseModel):
    """What the run answered."""

    text: str
    tool_calls: list[RunToolCall]
    finish_reason: str


class RunError(BaseModel):
    """Why the run failed."""

    model_config = ConfigDict(extra="allow")

    code: str
    title: str
    detail: str
    status: int


class RunUsage(BaseModel):
    """What the run has used so far."""

    input_tokens: int
    output_tokens: int
    tool_calls: int


class RunDocument(BaseModel):
    """A run."""

    object: Literal["run"] = "run"
    id: str
    agent_id: str
    agent_version: int
    session_id: str | None
    kind: str
    mode: RunMode
    status: RunStatus
    cancel_requested: bool
    output: RunOutput | None
    error: RunError | None
    usage: RunUsage
    created_at: str
    started_at: str | None
    finished_at: str | None


def document(run: Run) -> RunDocument:
    """A run as the API shows it."""
    return RunDocument.model_validate(
        {
            "id": run.run_id,
            "agent_id": run.agent_id,
            "agent_version": run.agent_version,
            "session_id": run.session_id,
            "kind": run.kind,
            "mode": run.mode,
            "status": run.status,
            "cancel_requested": run.cancel_requested_at is not None,
            "output": output_document(run.output),
            "error": run.error,
            "usage": {
                "input_tokens": run.input_tokens,
                "output_tokens": run.output_tokens,
                "tool_calls": run.tool_calls,
            },
            "created_at": to_rfc3339(run.created_at),
            "started_at": to_rfc3339(run.started_at) if run.started_at else None,
            "finished_at": to_rfc3339(run.finished_at) if run.finished_at else None,
        }
    )


@router.post(
    "/v1/sessions/{session_id}/runs",
    operation_id="create_run",
    summary="Run the session's agent",
    status_code=200,
    response_model=RunDocument,
    responses={
        200: {
            "description": "The run at its end, or its stream of events",
            "content": {"text/event-stream": {}},
        },
        202: {"description": "The run, queued", "model": RunDocument},
        **PROBLEMS,
    },
)
async def create_run(call: RunsWrite, session_id: Annotated[str, Path(max_length=64)], body: RunRequest) -> Response:
    """Ask the session's agent. A run that fails is answered as a run with `status: failed` and its error."""
    launched = await launch(call, body.ask(session_id))
    headers = {"X-Run-Id": launched.run.run_id}
    if launched.replayed:
        headers["Idempotent-Replayed"] = "true"
    if body.mode == "stream":
        return sse.EventStream(_stream(call, launched), headers)
    run = launched.run
    return Response(
        document(run).model_dump_json(),
        status_code=202 if body.mode == "background" else 200,
        headers=headers,
        media_type="application/json",
    )


@router.get(
    "/v1/runs",
    operation_id="list_runs",
    summary="List runs, newest first",
    response_model=Page[RunDocument],
    responses=PROBLEMS,
)
async def list_runs(
    call: RunsRead,
    limit: Limit = 20,
    after: Cursor = "",
    session_id: Annotated[str, Query(max_length=64)] = "",
    status: Annotated[RunStatus | None, Query()] = None,
) -> Page[RunDocument]:
    """The tenant's runs, newest first."""
    found, more = await read(
        call,
        lambda connection: runs.list_(
            connection, call.tenant_id, after, limit, session_id=session_id, status=status or ""
        ),
    )
    return Page.of([document(run) for run in found], has_more=more)


@router.get(
    "/v1/runs/{run_id}", operation_id="get_run", summary="Get a run", response_model=RunDocument, responses=PROBLEMS
)
async def get_run(call: RunsRead, run_id: RunId) -> RunDocument:
    """A run as it is now."""
    return document(await read(call, lambda connection: runs.get(connection, call.tenant_id, run_id)))


@router.post(
    "/v1/runs/{run_id}/cancel",
    operation_id="cancel_run",
    summary="Cancel a run",
    response_model=RunDocument,
    responses=PROBLEMS,
)
async def cancel_run(call: RunsWrite, run_id: RunId) -> Response:
    """Ask for a run's end, from any process. What it has used by then is metered. 409 when it has already ended."""
    source = call.services.settings.meter_source
    response = await write(
        call,
        lambda connection: runs.request_cancel(connection, call.tenant_id, run_id, call.now(), source=source),
        document,
    )
    if not call.services.executor.cancel(run_id):
        await signals.request_cancel(call.services.bus, run_id)
    return response


@router.get(
    "/v1/runs/{run_id}/events",
    operation_id="stream_run_events",
    summary="Follow a run's events",
    response_class=sse.EventStream,
    responses={
        200: {"content": {"text/event-stream": {}}},
        204: {"description": "The run has ended, and that was its last event: there is nothing to come back for"},
        **PROBLEMS,
    },
)
async def stream_run_events(
    call: RunsRead,
    run_id: RunId,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)] = None,
) -> Response:
    """The run's events from the first, or after `Last-Event-ID`, until its end. Resumes from any process. Once the key
    has ended, the last event is `error`, with the problem as its data.
    """
    after = parse_event_id(last_event_id)
    run = await read(call, lambda connection: runs.get(connection, call.tenant_id, run_id))
    if run.finished and after >= (run.last_event or 1):
        return Response(status_code=204)  # an EventSource connects again after anything else (WHATWG HTML, 9.2.3)
    return sse.EventStream(_only_end(run) if run.erased else _follow(call, run, after))


def parse_event_id(value: str | None) -> int:
    """The sequence in a `Last-Event-ID`; 0 when there is none. Raises InvalidRequest."""
    if value is None or value == "":
        return 0
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise InvalidRequest(
            "Last-Event-ID must be the id of an event of this run: a whole number.", code="event-id-invalid"
        )
    return int(value)


def encode(event: RunEvent) -> bytes:
    """A run event on the wire."""
    return sse.event(orjson.dumps(event.data), type_=event.type, id_=str(event.sequence))


def refused(call: Call, error: Unauthenticated) -> bytes:
    """The end of a stream whose key has ended: an event `error`, without an id, with the problem document."""
    body, _ = render(error, "", call.request_id)
    return sse.event(body, type_="error")


def _stream(call: Call, launched: Launched) -> AsyncIterator[bytes]:
    execution, channel = launched.execution, launched.channel
    if not (execution and channel):
        return _only_end(launched.run)

    async def unended() -> bytes:
        try:
            return _end(await execution.result())
        except KgentsError:
            return sse.retry()

    return _sent(call, live(call, channel), unended)


def _end(run: Run) -> bytes:
    type_, data = end_event_of(run)
    return encode(RunEvent(run.last_event or 1, type_, data))


async def _only_end(run: Run) -> AsyncIterator[bytes]:
    """The end of a run that has ended already, or whose text was deleted: the bus still has that for a day."""
    yield _end(run)


def _follow(call: Call, run: Run, after: int) -> AsyncIterator[bytes]:
    async def unended() -> bytes:
        return sse.retry()

    return _sent(call, recorded(call, run, after), unended)


async def _sent(
    call: Call, events: AsyncGenerator[RunEvent | None], unended: Callable[[], Awaitable[bytes]]
) -> AsyncIterator[bytes]:
    """A run's events until its last, or without that what `unended` says; once the key has ended, `refused`."""
    ended = False
    try:
        async with aclosing(events):
            async for event in events:
                ended = event is not None and event.terminal
                yield encode(event) if event else sse.PING
    except Unauthenticated as error:
        yield refused(call, error)
        return
    if not ended:
        yield await unended()
