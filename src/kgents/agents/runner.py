"""The runner: model, tools, model, until there is an answer; each step recorded before the next one starts.

It is short because everything that can go wrong with a process is handled by the record: a run that was recorded up to
a step can be continued from there by any process (see executor.py), under the same usage event ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import orjson
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters, StreamedResponse
from pydantic_ai.usage import RequestUsage

from kgents.agents.conversation import before_half, dump_message, output_of, output_schema, said, sound, string
from kgents.agents.events import EventType
from kgents.agents.ledger_ops import Finish, Recorded, StepRecord
from kgents.agents.model import CutOff, Output, Run, RunStatus
from kgents.agents.models.failures import UnreadableAnswer, translate
from kgents.agents.models.json_schema import complaint
from kgents.agents.models.tokens import count_request, count_tokens
from kgents.agents.prepare import Planner, Work
from kgents.agents.runs import problem_of
from kgents.agents.tools.toolbox import Toolbox
from kgents.clock import Clock, month_of
from kgents.config import Settings
from kgents.errors import KgentsError, ModelFailed, ModelTimeout
from kgents.telemetry import genai, traces
from kgents.telemetry.metrics import Metrics
from kgents.usage.model import NOTHING, Amounts

OUTPUT_RETRIES = 2
MOST_REPORTED = 10**9  # tokens of one call that are believed
MOST_CALLS = 128  # of tools, in one response
MOST_RESULTS = 4_000_000  # characters of what a run's tools answer, together
_NO_TOOLS = nullcontext(Toolbox())


class Outlet(Protocol):
    """Where a run's events go."""

    def emit(self, type_: EventType, data: dict[str, Any]) -> None:
        """Number an event and send it on."""
        ...

    def next_sequence(self) -> int:
        """The number that the next event will get."""
        ...

    async def room(self) -> None:
        """Wait for a client that does not keep up, within bounds."""
        ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What every run of a process shares."""

    settings: Settings
    clock: Clock
    planner: Planner
    metrics: Metrics
    record: Callable[[StepRecord], asyncio.Future[Recorded]]


class RunTask:
    """One run being carried out by this process."""

    def __init__(self, shared: Tools, work: Work, outlet: Outlet, *, stream: bool) -> None:
        self._shared = shared
        self._work = work
        self._outlet = outlet
        self._stream = stream
        self._calling = False
        self._call_used: Amounts | None = None  # known once it has its answer
        self._tool_calls = 0  # begun since the last record
        self._estimated = False
        self._text: list[str] = []
        self._streamed: StreamedResponse | None = None
        self._unreadable: UnreadableAnswer | None = None
        self._parameters = ModelRequestParameters()
        run = work.run
        self.finished: Finish | None = None
        self.finished_at = 0
        self.used = Amounts(0, run.input_tokens, run.output_tokens, run.tool_calls)

    async def execute(self) -> Finish:
        """Carry the run to its end and record it; answers how it ended.

        What a model or a tool does wrong ends the run as `failed`; it is not raised. Raises Unavailable when a step
        can't be recorded, and Conflict (`run-taken-over`) when another process has the run. When the task is
        cancelled nothing is recorded: the canceller knows why, and calls `abandon` or hands the run over.
        """
        timeout = self._work.definition.limits.timeout_seconds
        failure: KgentsError
        try:
            async with asyncio.timeout(timeout):
                return await self._steps()
        except TimeoutError:
            failure = ModelTimeout(
                f"The run did not end within its {timeout} s. Raise the agent's "
                "limits.timeout_seconds, or ask for less."
            )
        except KgentsError as error:
            if error.status == 503 or error.code == "run-taken-over":
                raise
            failure = error
        return await self.abandon("failed", failure)

    async def abandon(self, status: RunStatus, error: KgentsError | None) -> Finish:
        """Record the end of a run that is not going to answer, with what its step has used.

        A run whose end was recorded meanwhile keeps that end.
        """
        if self.finished:
            self._emit_end(self.finished)
            return self.finished
        text = "".join(self._text)
        cut_off = self.cut_off()
        if cut_off:
            self._estimated = cut_off.estimated
        finish = Finish(
            status=status,
            output=Output(text, (), "cancelled") if text else None,
            error=problem_of(error) if error else None,
            last_event=self._outlet.next_sequence(),
        )
        await self._record(used=Amounts(*cut_off.used) if cut_off else NOTHING, finish=finish)
        self._emit_end(finish)
        return finish

    def cut_off(self) -> CutOff | None:
        """What is to be metered of the step under way unless it is made again: its model call as far as that was heard,
        or the tool calls that were begun. Where an earlier process had heard more of the same call, it is that: the
        tenant pays for one call, and not for none of what was streamed because another try of it came to less.
        """
        used = Amounts(tool_calls=self._tool_calls)
        if self._calling:
            used = self._call_used or self._estimate(self._heard())
        earlier = self._work.run.cut_off
        if earlier and earlier.step == self._work.step and sum(earlier.used) > sum(used):
            return earlier
        if not any(used):
            return None
        return CutOff(self._work.step, self._work.definition.model, (*used,), self._estimated)

    async def _steps(self) -> Finish:
        work = self._work
        tools = work.definition.tools
        shared, tenant_id = self._shared, work.run.tenant_id
        opened = (
            Toolbox.open(tools, tenant_id=tenant_id, settings=shared.settings, clock=shared.clock)
            if tools
            else _NO_TOOLS
        )
        async with opened as toolbox:
            parameters = work.parameters(toolbox.definitions)
            pending = self._pending()
            await self._reserve_for(toolbox, pending)
            retries = 0
            while True:
                if work.step and self._model_steps() >= work.definition.limits.max_steps:
                    raise ModelFailed(
                        f"The run took its {work.definition.limits.max_steps} steps without an answer. Raise the "
                        "agent's limits.max_steps, or simplify its task.",
                        code="max-steps",
                    )
                if pending:
                    await self._call_tools(toolbox, pending)
                response, used = await self._call_model(parameters)
                output = output_of(response, work.callers_tools)
                pending = [] if output.tool_calls else self._server_calls(response)
                if not pending:
                    complaint = self._complaint(output)
                    if complaint is None:
                        return await self._finish(response, output, used)
                    retries += 1
                    await self._retry(response, used, complaint, retries)
                else:
                    await self._keep(response, used, Amounts(tool_calls=len(pending)))

    async def _reserve_for(self, toolbox: Toolbox, pending: Sequence[ToolCallPart]) -> None:
        """Reserve for the next step where that was not done for it as it is now: what an MCP server's tools add to the
        first request was not known at admission; a process may have died before it could end a run that had been
        refused, or make its next reservation; and what was reserved in another month does not bind this one's quota.

        One transaction gives back the old reservation and makes the new one, so that a crash leaves one or the other,
        or, after a refusal, none: then whoever goes on with the run asks again.
        """
        work = self._work
        adds_tools = not work.step and any(tool["type"] == "mcp" for tool in work.definition.tools)
        has_none = work.resumed and not any(work.run.reserved)
        if not adds_tools and not has_none and work.run.period == month_of(self._shared.clock.now()):
            return
        if pending:
            worst = Amounts(tool_calls=len(pending))
        else:
            worst = self._shared.planner.worst_case(work, toolbox.definitions, first=not work.step)
        recorded = await self._record(used=NOTHING, reserve=worst)
        if recorded.refusal:
            raise recorded.refusal

    def _pending(self) -> list[ToolCallPart]:
        """The tool calls that a run, continued from its record, has still to make."""
        last = self._work.history[-1]
        return self._server_calls(last) if isinstance(last, ModelResponse) and self._work.step else []

    def _server_calls(self, response: ModelResponse) -> list[ToolCallPart]:
        return [
            part
            for part in response.parts
            if isinstance(part, ToolCallPart) and part.tool_name not in self._work.callers_tools
        ]

    def _model_steps(self) -> int:
        return sum(isinstance(message, ModelResponse) for message in self._work.history[-self._work.step :])

    async def _call_model(self, parameters: ModelRequestParameters) -> tuple[ModelResponse, Amounts]:
        work = self._work
        self._calling, self._text, self._parameters = True, [], parameters
        self._streamed = self._unreadable = self._call_used = None
        started = perf_counter()
        with genai.model_call(
            work.definition.model,
            stream=self._stream,
            session_id=work.run.session_id,
            max_tokens=work.settings.get("max_tokens"),
            temperature=work.settings.get("temperature"),
            top_p=work.settings.get("top_p"),
        ) as call:
            try:
                if self._stream:
                    response = sound(await self._call_streaming(parameters))
                else:
                    response = sound(await work.model.request(work.history, work.settings, parameters))
            except Exception as error:
                self._unreadable = error if isinstance(error, UnreadableAnswer) else None
                self._calling = self._was_answered()
                raise translate(error) from error
            usage = response.usage
            call.answered(
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                model=response.model_name,
                response_id=response.provider_response_id,
                finish=response.finish_reason,
            )
        self._shared.metrics.model_request(work.definition.model, perf_counter() - started)
        used = Amounts(int(work.step == 0), usage.input_tokens, usage.output_tokens)
        if not _is_report(usage):
            used = self._estimate(said(response))
        self._call_used = used
        return response, used

    def _heard(self) -> str:
        """What came of an answer so far."""
        if self._unreadable:
            return self._unreadable.text
        return said(sound(self._streamed.get())) if self._streamed else ""

    def _was_answered(self) -> bool:
        """Whether anything came of a call: one that failed before its first word was not answered, and providers don't
        charge for it.
        """
        return self._unreadable is not None or bool(self._heard()) or self._reported() is not None

    def _reported_so_far(self) -> RequestUsage | None:
        """The usage that was reported of a call without an answer."""
        answer = self._unreadable or self._streamed
        return answer.usage if answer and _is_report(answer.usage) else None

    def _reported(self) -> RequestUsage | None:
        """The usage that was reported with the end of an answer, which stands as it is, whatever came after."""
        if self._unreadable:
            in_full = self._unreadable.in_full
        else:
            in_full = bool(self._streamed and self._streamed.finish_reason)
        return self._reported_so_far() if in_full else None

    async def _call_streaming(self, parameters: ModelRequestParameters) -> ModelResponse:
        work = self._work
        async with work.model.request_stream(work.history, work.settings, parameters) as stream:
            self._streamed = stream
            rest = ""  # the first half of a character, whose second one is to come
            async for event in stream:
                if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                    text = rest + event.delta.content_delta
                elif isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                    text = rest + event.part.content
                else:
                    continue
                end = before_half(text)
                rest = text[end:]
                await self._say(string(text[:end]))
            await self._say(string(rest))
            return stream.get()

    async def _say(self, text: str) -> None:
        if text:
            self._text.append(text)
            self._outlet.emit("text.delta", {"text": text})
            await self._outlet.room()

    def _estimate(self, answer: str) -> Amounts:
        """The usage of a call that was cut off, or that the model ended without a report: an estimate, from what it
        reported so far and a count of its `answer`.
        """
        if reported := self._reported():
            return Amounts(int(self._work.step == 0), reported.input_tokens, reported.output_tokens)
        usage = self._reported_so_far()
        self._estimated = True
        return Amounts(
            int(self._work.step == 0),
            max(usage.input_tokens if usage else 0, count_request(self._work.history, self._parameters)),
            max(usage.output_tokens if usage else 0, count_tokens(answer)),
        )

    async def _call_tools(self, toolbox: Toolbox, calls: Sequence[ToolCallPart]) -> None:
        if len(calls) > MOST_CALLS:
            raise ModelFailed(
                f"The model called {len(calls)} tools at once; {MOST_CALLS} are allowed. Simplify the run's task.",
                code="too-many-tool-calls",
            )
        parts: list[ToolReturnPart] = []
        room = MOST_RESULTS - _answered(self._work.history[-self._work.step :])
        for call in calls:
            await asyncio.sleep(0)  # some tools only compute, and many in a row would keep other requests waiting
            kind = toolbox.kind_of(call.tool_name)
            self._tool_calls += 1
            with genai.tool_call(call.tool_name, call.tool_call_id, kind):
                result = string(await toolbox.call(call.tool_name, call.args_as_dict(raise_if_invalid=False)))
            room -= len(result)
            if room < 0:
                result = f"Error: the results of this run's tools have more than {MOST_RESULTS:,} characters together."
            self._shared.metrics.tool_call(kind)
            parts.append(ToolReturnPart(call.tool_name, result, call.tool_call_id))
            self._outlet.emit("tool.result", {"id": call.tool_call_id, "name": call.tool_name, "result": result})
        message = ModelRequest(parts=parts)
        self._work.history.append(message)
        worst = self._shared.planner.worst_case(self._work, toolbox.definitions, first=False)
        await self._record_step(message, Amounts(tool_calls=len(calls)), worst)

    async def _keep(self, response: ModelResponse, used: Amounts, reserve: Amounts) -> None:
        """Record a response that is not the answer."""
        self._work.history.append(response)
        await self._record_step(response, used, reserve)
        self._outlet.emit(
            "step.completed",
            {
                "step": self._work.step,
                "tool_calls": [
                    {"id": call.tool_call_id, "name": call.tool_name, "arguments": call.args_as_json_str()}
                    for call in self._server_calls(response)
                ],
            },
        )

    async def _retry(self, response: ModelResponse, used: Amounts, complaint: str, retries: int) -> None:
        if retries > OUTPUT_RETRIES:
            await self._keep(response, used, NOTHING)
            raise ModelFailed(
                f"The model's answer did not match the JSON schema in {retries} tries: {complaint}",
                code="output-invalid",
            )
        await self._keep(response, used, NOTHING)
        request = ModelRequest(parts=[UserPromptPart(f"That does not match the JSON schema: {complaint}. Try again.")])
        self._work.history.append(request)
        worst = self._shared.planner.worst_case(self._work, self._parameters.function_tools, first=False)
        await self._record_step(request, NOTHING, worst)

    def _complaint(self, output: Output) -> str | None:
        """What is wrong with an answer that has to match a schema, or None."""
        schema = output_schema(self._work.definition, self._work.overrides)
        if schema is None or output.tool_calls or output.finish_reason == "length":
            return None
        try:
            value = orjson.loads(output.text)
        except orjson.JSONDecodeError:
            return "it is not JSON"
        return complaint(schema, value)

    async def _record_step(self, message: ModelMessage, used: Amounts, reserve: Amounts) -> None:
        recorded = await self._record(used=used, reserve=reserve, message=dump_message(message))
        if recorded.refusal:
            raise recorded.refusal

    async def _finish(self, response: ModelResponse, output: Output, used: Amounts) -> Finish:
        work = self._work
        work.history.append(response)
        keep = work.run.kind != "chat.completion" and work.overrides.store
        finish = Finish(
            status="completed",
            output=output,
            last_event=self._outlet.next_sequence(),
            messages=[dump_message(message) for message in work.history[work.new_from :]] if keep else (),
        )
        await self._record(used=used, finish=finish)
        self._emit_end(finish)
        return finish

    async def _record(self, *, used: Amounts, **values: Any) -> Recorded:
        run, now = self._work.run, self._shared.clock.now()
        future = self._shared.record(
            StepRecord(
                run_id=run.run_id,
                tenant_id=run.tenant_id,
                attempt=run.attempt,
                agent_id=run.agent_id,
                model=self._work.definition.model,
                step=self._work.step,
                now=now,
                used=used,
                estimated=self._estimated,
                context=traces.recorded_now(),
                **values,
            )
        )
        try:
            with traces.sql("record step"):
                recorded = await asyncio.shield(future)
        except asyncio.CancelledError:
            # The record may be on its way to disk: only its outcome says what is left to record.
            await asyncio.wait([future])
            future.result()
            self._recorded(used, values.get("finish"), now, stepped="message" in values)
            raise
        self._recorded(used, values.get("finish"), now, stepped="message" in values)
        return recorded

    def _recorded(self, used: Amounts, finish: Finish | None, now: int, *, stepped: bool) -> None:
        self._calling, self._estimated, self._tool_calls, self._text = False, False, 0, []
        self.used = self.used.plus(used)
        self.finished, self.finished_at = finish, now
        self._work.step += int(stepped)
        self._shared.metrics.tokens(used.input_tokens, used.output_tokens)

    def _emit_end(self, finish: Finish) -> None:
        self._outlet.emit(*end_event(finish.status, finish.output, finish.error, self.used))


def _answered(messages: Sequence[ModelMessage]) -> int:
    """How many characters the tools have answered."""
    parts = (part for message in messages if isinstance(message, ModelRequest) for part in message.parts)
    return sum(len(part.model_response_str()) for part in parts if isinstance(part, ToolReturnPart))


def _is_report(usage: RequestUsage) -> bool:
    """Whether a provider's usage says something that can be: it comes from outside, and a count below nothing would pay
    the tenant.
    """
    counts = (usage.input_tokens, usage.output_tokens)
    return usage.has_values() and all(type(count) is int and 0 <= count <= MOST_REPORTED for count in counts)


def end_event(
    status: str, output: Output | None, error: dict[str, Any] | None, used: Amounts
) -> tuple[EventType, dict[str, Any]]:
    """The type and data of a run's last event: the same whether it is sent by the runner or made from the record."""
    types: dict[str, EventType] = {
        "completed": "run.completed",
        "failed": "run.failed",
        "cancelled": "run.cancelled",
    }
    return types[status], {
        "status": status,
        "output": output_document(output),
        "error": error,
        "usage": {
            "input_tokens": used.input_tokens,
            "output_tokens": used.output_tokens,
            "tool_calls": used.tool_calls,
        },
    }


def end_event_of(run: Run) -> tuple[EventType, dict[str, Any]]:
    """The last event of a finished run, from its record."""
    return end_event(run.status, run.output, run.error, Amounts(0, run.input_tokens, run.output_tokens, run.tool_calls))


def output_document(output: Output | None) -> dict[str, Any] | None:
    """An output as the API shows it."""
    if output is None:
        return None
    return {
        "text": output.text,
        "tool_calls": [
            {"id": call.call_id, "name": call.name, "arguments": call.arguments} for call in output.tool_calls
        ],
        "finish_reason": output.finish_reason,
    }
