"""`/v1/responses`, as OpenAI's SDKs speak it: a response is a run, and follows on from an earlier one by its id."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query, Response
from sqlalchemy import Connection

from kgents.agents import runs, service, signals
from kgents.agents.events import RunEvent
from kgents.agents.model import Run
from kgents.agents.runner import end_event_of
from kgents.api import sse
from kgents.api.call import Call, RunsRead, RunsWrite
from kgents.api.follow import live, recorded
from kgents.api.json_route import JsonRoute
from kgents.api.launch import Ask, Launched, launch
from kgents.api.outcome import failure_of
from kgents.api.problems import OPENAI_PROBLEMS
from kgents.api.response_shapes import Deleted, ResponseDocument, ResponsesRequest, Translator, document, run_id_of
from kgents.api.unit import read, write
from kgents.errors import InvalidRequest, KgentsError, NotFound, Unauthenticated

router = APIRouter(tags=["OpenAI-compatible"], route_class=JsonRoute)

ResponseId = Annotated[str, Path(max_length=64, description="The response's id.")]
STREAM: dict[str, Any] = {"content": {"text/event-stream": {}}}


@router.post(
    "/v1/responses",
    operation_id="create_response",
    summary="Create a response",
    response_model=ResponseDocument,
    responses={200: {"description": "The response, or its stream of events", **STREAM}, **OPENAI_PROBLEMS},
)
async def create_response(call: RunsWrite, body: ResponsesRequest) -> Response:
    """Answer input with an agent: whole, as a stream, or in the background."""
    ask = Ask(
        kind="response",
        mode="background" if body.background else "stream" if body.stream else "wait",
        messages=body.messages(),
        overrides=body.overrides(),
        agent=body.model or "",
        previous_run_id=run_id_of(body.previous_response_id) if body.previous_response_id else None,
    )
    if not ask.agent and not ask.previous_run_id:
        raise InvalidRequest("Name the agent in 'model'.", param="model")
    launched = await launch(call, ask)
    headers = {"X-Run-Id": launched.run.run_id}
    if launched.replayed:
        headers["Idempotent-Replayed"] = "true"
    if body.stream:
        return sse.EventStream(_stream(call, launched, body.model or ""), headers)
    run = launched.run
    failure = failure_of(run) if run.finished and not body.background else None
    if failure is not None:
        raise failure
    return Response(
        orjson.dumps(document(run, body.model or run.agent_id)), headers=headers, media_type="application/json"
    )


@router.get(
    "/v1/responses/{response_id}",
    operation_id="get_response",
    summary="Get a response",
    response_model=ResponseDocument,
    responses={200: {"description": "The response, or its stream of events", **STREAM}, **OPENAI_PROBLEMS},
)
async def get_response(
    call: RunsRead,
    response_id: ResponseId,
    stream: bool = False,
    starting_after: Annotated[int | None, Query(ge=0, lt=2**53)] = None,
) -> Response:
    """A response as it is now, or its events from the first (or after `starting_after`) to its end."""
    run, name = await read(call, lambda connection: _find(connection, call, response_id))
    if stream:
        return sse.EventStream(_follow(call, run, Translator(run, name, after=starting_after)))
    return Response(orjson.dumps(document(run, name)), media_type="application/json")


@router.post(
    "/v1/responses/{response_id}/cancel",
    operation_id="cancel_response",
    summary="Cancel a response",
    response_model=ResponseDocument,
    responses=OPENAI_PROBLEMS,
)
async def cancel_response(call: RunsWrite, response_id: ResponseId) -> Response:
    """Ask for the end of a response that is not finished."""
    source = call.services.settings.meter_source

    def unit(connection: Connection) -> tuple[Run, str]:
        run, name = _find(connection, call, response_id)
        return runs.request_cancel(connection, call.tenant_id, run.run_id, call.now(), source=source), name

    answer = await write(call, unit, lambda found: ResponseDocument.model_validate(document(*found)))
    if not call.services.executor.cancel(run_id_of(response_id)):
        await signals.request_cancel(call.services.bus, run_id_of(response_id))
    return answer


@router.delete(
    "/v1/responses/{response_id}",
    operation_id="delete_response",
    summary="Delete a response",
    response_model=Deleted,
    responses=OPENAI_PROBLEMS,
)
async def delete_response(call: RunsWrite, response_id: ResponseId) -> Response:
    """Delete what a finished response said. Its usage stays."""

    def unit(connection: Connection) -> Deleted:
        run, _ = _find(connection, call, response_id)
        runs.erase(connection, run)
        return Deleted(id=response_id)

    return await write(call, unit, lambda deleted: deleted)


def _find(connection: Connection, call: Call, response_id: str) -> tuple[Run, str]:
    """The response's run, and the name of its agent (its id, once the agent is deleted)."""
    missing = NotFound(f"There is no response {response_id!r}.")
    try:
        run = runs.get(connection, call.tenant_id, run_id_of(response_id))
    except NotFound:
        raise missing from None
    if run.kind != "response" or run.erased:
        raise missing
    try:
        return run, service.get_agent(connection, call.tenant_id, run.agent_id).name
    except NotFound:
        return run, run.agent_id


async def _stream(call: Call, launched: Launched, model: str) -> AsyncIterator[bytes]:
    run = launched.run
    translator = Translator(run, model or run.agent_id)
    if not (launched.execution and launched.channel):
        async for part in _follow(call, run, translator):
            yield part
        return
    ended = False
    try:
        async with aclosing(live(call, launched.channel)) as events:
            async for event in events:
                ended = event is not None and event.terminal
                if data := translator.of(event) if event else sse.PING:
                    yield data
    except Unauthenticated as error:
        yield translator.refused(error)
        return
    if not ended:
        try:
            run = await launched.execution.result()
        except KgentsError:
            yield sse.retry()
            return
        type_, end = end_event_of(run)
        yield translator.of(RunEvent(run.last_event or 0, type_, end))


async def _follow(call: Call, run: Run, translator: Translator) -> AsyncIterator[bytes]:
    try:
        async with aclosing(recorded(call, run, 0)) as events:
            async for event in events:
                if data := translator.of(event) if event else sse.PING:
                    yield data
    except Unauthenticated as error:
        yield translator.refused(error)
