"""Starting a run for an HTTP request: the one path of the native and the OpenAI-compatible routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic_ai.messages import ModelMessage
from sqlalchemy import Connection

from kgents.agents import runs, service, signals
from kgents.agents.conversation import load_message
from kgents.agents.events import Channel
from kgents.agents.executor import Execution
from kgents.agents.ledger_ops import Admission, key_in_use, run_of_key
from kgents.agents.model import Overrides, Run, RunKind, RunMode
from kgents.agents.prepare import input_of, overrides_of
from kgents.api.call import Call
from kgents.api.unit import read
from kgents.clock import month_of
from kgents.errors import Conflict, NotFound, RateLimited, Unprocessable
from kgents.ids import new_id

MOST_EARLIER = 4_000_000  # characters of JSON, of what was said before: no model's window holds more


class _TooMuchEarlier(Unprocessable):
    code = "history-too-long"


class Ask(NamedTuple):
    """What a request asks of an agent. `agent` is an id or a name; in a session it is the session's."""

    kind: RunKind
    mode: RunMode
    messages: Sequence[dict[str, Any]]
    overrides: Overrides
    agent: str = ""
    session_id: str | None = None
    previous_run_id: str | None = None


class Launched(NamedTuple):
    """The run as it was recorded. `execution` carries out a stream's, unless it is an earlier one's replay."""

    run: Run
    execution: Execution | None = None
    channel: Channel | None = None
    replayed: bool = False


async def launch(call: Call, ask: Ask) -> Launched:
    """Record a run with its reservation, and start it; leave it to the workers (mode `background`) or carry it out to
    its end (`wait`).

    Raises NotFound (agent, session or earlier run), Conflict (the session is busy), QuotaExceeded, RateLimited,
    Unprocessable (model not configured; too much was said before; Idempotency-Key used for another request),
    Unavailable (`run-continues` when the run was admitted, `outcome-unknown` when it may have been).
    """
    services = call.services
    try:
        agent_ref, earlier = await _context(call, ask)
    except _TooMuchEarlier:
        # What was said by then may be the answer to this very request, which is sent again.
        if run_id := await _run_of_key(call):
            return await _replay(call, run_id)
        raise
    agent = await services.catalog.get(call.tenant_id, agent_ref)
    await _check_tokens(call)
    now = services.clock.now()
    background = ask.mode == "background"
    run = Run(
        run_id=new_id("run"),
        tenant_id=call.tenant_id,
        agent_id=agent.agent_id,
        agent_version=agent.version,
        session_id=ask.session_id,
        previous_run_id=ask.previous_run_id,
        kind=ask.kind,
        mode=ask.mode,
        status="queued" if background else "running",
        input=input_of(ask.messages, ask.overrides),
        output=None,
        error=None,
        attempt=0 if background else 1,
        owner=None if background else services.executor.instance,
        cancel_requested_at=None,
        period=month_of(now),
        reserved=(0, 0, 0, 0),
        input_tokens=0,
        output_tokens=0,
        tool_calls=0,
        last_event=None,
        request_id=call.request_id,
        traceparent=call.traceparent,
        created_at=now,
        started_at=None if background else now,
        finished_at=None,
    )
    work = services.planner.work(run, agent.definition, earlier)
    work.run = run = run._replace(reserved=services.planner.worst_case(work, first=True))
    admitted = await services.executor.admit(Admission(run, call.idempotency))
    if admitted.replay_of:
        return await _replay(call, admitted.replay_of)
    call.place.leave()  # what comes now is mostly waiting for a model
    if background:
        await services.limits.charge(call.principal, sum(run.reserved[1:3]))
        await signals.nudge(services.bus)
        return Launched(run)

    def charge(ended: Run) -> None:
        services.limits.charge_later(call.principal, ended.input_tokens + ended.output_tokens)

    if ask.mode == "wait":
        return Launched(await services.executor.carry_out(work, on_end=charge))
    channel = Channel()
    return Launched(run, services.executor.start(work, channel=channel, on_end=charge), channel)


async def _context(call: Call, ask: Ask) -> tuple[str, list[ModelMessage]]:
    """The agent that is meant, and what was said before."""
    if not ask.session_id and not ask.previous_run_id:
        return ask.agent, []

    def fetch(connection: Connection) -> tuple[str, list[str]]:
        probe = ask.session_id
        if probe:
            agent_id = service.get_session(connection, call.tenant_id, probe).agent_id
            return agent_id, runs.earlier_of_session(connection, call.tenant_id, probe)
        assert ask.previous_run_id is not None
        previous = runs.get(connection, call.tenant_id, ask.previous_run_id)
        if previous.kind != "response" or previous.erased or not overrides_of(previous.input).store:
            raise NotFound(
                f"There is no response of the run {ask.previous_run_id!r} to follow on from: there never was, it was "
                "deleted, or it was made with `store` false."
            )
        if not previous.finished:
            raise Conflict(f"Response {previous.run_id} is not finished. Wait for it before you follow on from it.")
        return ask.agent or previous.agent_id, runs.earlier_of_chain(connection, call.tenant_id, previous.run_id)

    agent, texts = await read(call, fetch)
    if (size := sum(map(len, texts))) > MOST_EARLIER:
        raise _TooMuchEarlier(
            f"What was said before has {size:,} characters, and a run takes {MOST_EARLIER:,} at most. Begin a new "
            "session, or a response without previous_response_id."
        )
    return agent, [load_message(text) for text in texts]


async def _check_tokens(call: Call) -> None:
    verdict = await call.services.limits.tokens(call.principal)
    call.headers.extend(verdict.headers[2:])
    if not verdict.allowed:
        call.services.metrics.rate_limited("tokens")
        raise RateLimited(
            f"The tenant's rate limit of {verdict.limit} tokens a minute is reached. "
            f"Try again in {verdict.retry_after} s.",
            headers={"Retry-After": str(verdict.retry_after)},
            limit=verdict.limit,
            kind="tokens",
        )


async def _run_of_key(call: Call) -> str | None:
    key = call.idempotency
    if key is None:
        return None
    return await read(call, lambda connection: run_of_key(connection, call.tenant_id, key, call.now()))


async def _replay(call: Call, run_id: str) -> Launched:
    run = await read(call, lambda connection: runs.get(connection, call.tenant_id, run_id))
    if not run.finished and run.mode != "background":
        raise key_in_use()
    return Launched(run, replayed=True)
