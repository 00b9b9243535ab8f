"""Carrying out runs in this process: starting, following, cancelling, handing over; and taking over from the dead.

A run belongs to the process instance named in its `owner`, at an `attempt`. Everything that its process writes names
the attempt, so a process that was taken for dead and comes back can write nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from kgents.agents import runs
from kgents.agents.events import Channel, EventType, RunEvent
from kgents.agents.ledger_ops import Admission, Admit, Admitted, Finish, Recorded, RecordStep, StepRecord
from kgents.agents.model import Run
from kgents.agents.prepare import Planner, Work
from kgents.agents.publisher import Publisher
from kgents.agents.runner import RunTask, Tools
from kgents.agents.runs import Held
from kgents.bus.nats import Bus
from kgents.clock import Clock
from kgents.config import Settings
from kgents.errors import KgentsError, Unavailable
from kgents.store.engine import Scope, Store
from kgents.telemetry import genai, logs, traces
from kgents.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

LOOK = 0.05  # seconds between two looks at whether an admission has become a run
Stop = Literal["cancel", "handover"]
OnEnd = Callable[[Run], None]


def nothing(_run: Run) -> None:
    """What to do at a run's end where there is nothing to do."""


@dataclass(slots=True)
class Execution:
    """A run that this process carries out, by its `steps`. `result` is the run as recorded at its end."""

    work: Work
    channel: Channel | None
    on_end: OnEnd
    task: asyncio.Task[Any] | None = None
    stop: Stop | None = None
    steps: RunTask | None = None

    async def result(self) -> Run:
        """Wait for the end. Raises Unavailable (`run-continues`) when another process is to go on with the run: it was
        handed over, taken over, or could not be recorded here. The run goes on when the waiter is cancelled.
        """
        assert self.task is not None
        run: Run = await asyncio.shield(self.task)
        return run

    def left(self) -> Run:
        """The run as it is to be given back to the queue, with what its step has used so far."""
        run = self.work.run
        return run._replace(cut_off=self.steps.cut_off()) if self.steps else run


class _Outlet:
    """Numbers a run's events and sends them to the client in this process and to the bus."""

    def __init__(self, channel: Channel | None, publisher: Publisher | None, last: int) -> None:
        self._channel = channel
        self._publisher = publisher
        self._last = last

    def emit(self, type_: EventType, data: dict[str, Any]) -> None:
        self._last += 1
        if self._channel is None and self._publisher is None:
            return
        event = RunEvent(self._last, type_, data)
        if self._channel:
            self._channel.put(event)
        if self._publisher:
            self._publisher.put(event)

    def next_sequence(self) -> int:
        return self._last + 1

    async def room(self) -> None:
        if self._channel:
            await self._channel.room()


class Executor:
    """One for each process that carries out runs (the API for its callers, the workers for the queue)."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        bus: Bus,
        clock: Clock,
        planner: Planner,
        metrics: Metrics,
        instance: str,
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._metrics = metrics
        self._planner = planner
        self.instance = instance
        self._source = settings.meter_source
        self._admit = Admit(settings.meter_source)
        self._record_op = RecordStep(settings.meter_source)
        self._shared = Tools(settings, clock, planner, metrics, self._record)
        self._running: dict[str, Execution] = {}
        self._publishers: set[asyncio.Task[None]] = set()
        self._draining = False
        self._stranded: dict[str, Run | Held] = {}
        self._awaited: set[str] = set()

    @property
    def running(self) -> int:
        """How many runs this process carries out now."""
        return len(self._running)

    async def admit(self, admission: Admission) -> Admitted:
        """Record a run and its reservation. Raises QuotaExceeded, Conflict, NotFound, Unprocessable, Unavailable."""
        if self._draining:
            raise draining()
        with traces.sql("admit run"), self.awaiting(admission.run.run_id):
            return await self._store.submit(self._admit, admission)

    @contextmanager
    def awaiting(self, run_id: str) -> Iterator[None]:
        """While this process waits to hear whether a run is recorded as its own. Who goes on with the run starts it
        without waiting for anything else.
        """
        self._awaited.add(run_id)
        try:
            yield
        finally:
            self._awaited.discard(run_id)

    def start(self, work: Work, *, channel: Channel | None = None, on_end: OnEnd = nothing) -> Execution:
        """Carry out a run that is recorded as `running` with this instance as its owner. `on_end` is told of its end,
        where that could be recorded.
        """
        execution = Execution(work, channel, on_end)
        self._running[work.run.run_id] = execution
        execution.task = asyncio.create_task(self._carry_out(execution), name=work.run.run_id)
        return execution

    async def carry_out(self, work: Work, *, on_end: OnEnd = nothing) -> Run:
        """`start` and `Execution.result` in one, without a task of its own: for a caller that nobody cancels while it
        waits, such as a request whose client may go away, but not the request.
        """
        execution = Execution(work, None, on_end, asyncio.current_task())
        self._running[work.run.run_id] = execution
        return await self._carry_out(execution)

    def cancel(self, run_id: str) -> bool:
        """Stop a run if this process carries it out; it is recorded as cancelled. Answers whether it does."""
        return self._stop(run_id, "cancel")

    def carries(self, run_id: str) -> bool:
        """Whether this process carries the run out now."""
        return run_id in self._running

    def knows(self, run_id: str) -> bool:
        """Whether this process carries the run out, or may be about to."""
        return run_id in self._running or run_id in self._awaited

    def strand(self, run: Run | Held) -> None:
        """Have a run given back that this process does not carry out."""
        self._stranded[run.run_id] = run

    def stranded(self) -> list[Run | Held]:
        """The runs that are recorded as this process's, and that it does not carry out (any more)."""
        return list(self._stranded.values())

    def given_back(self, stranded: Sequence[Run | Held]) -> None:
        """Forget stranded runs that are in the queue again."""
        for run in stranded:
            self._stranded.pop(run.run_id, None)

    async def fail(self, run: Run, error: KgentsError) -> None:
        """Record that a run which is this instance's can't be carried out; of one that another process has by now, or
        that has ended, nothing. Raises Unavailable.
        """
        now = self._clock.now()
        finish = Finish("failed", error=runs.problem_of(error))
        with self.awaiting(run.run_id):
            await self._store.write(
                Scope.tenant(run.tenant_id),
                lambda connection: runs.end(connection, run, finish, now, source=self._source),
            )

    async def drain(self, grace: float) -> None:
        """Finish what runs for at most `grace` seconds, then hand over what is left to the workers."""
        self._draining = True
        now = asyncio.get_running_loop().time
        end = now() + grace
        while (self._running or self._awaited) and (left := end - now()) > 0:
            if tasks := self._tasks():
                await asyncio.wait(tasks, timeout=left)
            else:  # one was asked for before, and its admission is under way
                await asyncio.sleep(min(left, LOOK))
        for run_id in list(self._running):
            self._stop(run_id, "handover")
        if tasks := self._tasks():
            await asyncio.wait(tasks, timeout=5)
        if self._publishers:
            await asyncio.wait(self._publishers, timeout=2)

    def _tasks(self) -> list[asyncio.Task[Any]]:
        return [execution.task for execution in self._running.values() if execution.task]

    def _stop(self, run_id: str, why: Stop) -> bool:
        execution = self._running.get(run_id)
        if execution is None or execution.task is None:
            return False
        if execution.stop is None:
            execution.stop = why
            execution.task.cancel()
        return True

    def _record(self, record: StepRecord) -> asyncio.Future[Recorded]:
        return self._store.submit(self._record_op, record)

    async def _carry_out(self, execution: Execution) -> Run:
        """The run at its end. Whatever goes wrong, it is left ended, in the queue, or for the keeper to give back."""
        run = execution.work.run
        publisher: Publisher | None = None
        self._metrics.run_started()
        try:
            with (
                genai.run_span(
                    run.traceparent,
                    run_id=run.run_id,
                    tenant_id=run.tenant_id,
                    agent_id=run.agent_id,
                    model=execution.work.definition.model,
                    session_id=run.session_id,
                ) as span,
                logs.bound(run_id=run.run_id),
            ):
                publisher = self._publisher(run)
                ended = await self._to_the_end(execution, publisher)
                span.ended(ended.status, ended.error["code"] if ended.error else None)
                return ended
        except KgentsError as error:
            if error.code not in ("run-taken-over", "run-continues"):
                self.strand(execution.left())
            raise continues(run) from error
        except Exception as error:  # whatever it is, a run that nobody gives back would stay `running`
            log.exception("a run could not be ended", exc_info=error)
            self.strand(run)
            raise continues(run) from error
        finally:
            self._metrics.run_left()
            if self._running.get(run.run_id) is execution:
                del self._running[run.run_id]
            if execution.channel:
                execution.channel.close()
            if publisher:
                publisher.close()

    async def _to_the_end(self, execution: Execution, publisher: Publisher | None) -> Run:
        work, run = execution.work, execution.work.run
        started = self._clock.monotonic()
        last = await publisher.resume() if publisher and work.resumed else 0
        outlet = _Outlet(execution.channel, publisher, last)
        task = execution.steps = RunTask(self._shared, work, outlet, stream=run.mode != "wait")
        if work.resumed:
            self._metrics.run_restarted()
            outlet.emit("run.restarted", {"attempt": run.attempt, "step": work.step})
        else:
            outlet.emit("run.created", {"run_id": run.run_id, "agent_id": run.agent_id})
        try:
            finish = await self._execute(execution, task)
        except KgentsError:
            raise
        except Exception as error:
            log.exception("run failed unexpectedly", exc_info=error)
            finish = await task.abandon("failed", KgentsError("An error on our side ended the run; it is logged."))
        self._metrics.run(run.mode, finish.status, self._clock.monotonic() - started)
        ended = self._ended(run, finish, task)
        execution.on_end(ended)
        return ended

    async def _execute(self, execution: Execution, task: RunTask) -> Finish:
        try:
            return await task.execute()
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if execution.stop is None or current is None:
                raise
            current.uncancel()
        if execution.stop == "cancel" or task.finished:
            return await task.abandon("cancelled", None)
        run, now = execution.left(), self._clock.now()
        await self._store.write(Scope.tenant(run.tenant_id), lambda connection: runs.requeue(connection, run, now))
        log.info("run handed over", run_id=run.run_id)
        raise continues(run)

    def _ended(self, run: Run, finish: Finish, task: RunTask) -> Run:
        return run._replace(
            status=finish.status,
            output=finish.output,
            error=finish.error,
            last_event=finish.last_event,
            input_tokens=task.used.input_tokens,
            output_tokens=task.used.output_tokens,
            tool_calls=task.used.tool_calls,
            finished_at=task.finished_at,
            owner=None,
        )

    def _publisher(self, run: Run) -> Publisher | None:
        if run.mode == "wait":
            return None
        publisher = Publisher(self._bus, run.run_id)
        task = asyncio.create_task(publisher.run(), name=f"events-{run.run_id}")
        self._publishers.add(task)
        task.add_done_callback(self._publishers.discard)
        return publisher


def draining() -> Unavailable:
    """The refusal of a process that is shutting down."""
    return Unavailable(
        "This process is shutting down. Try again: another one will answer.",
        code="draining",
        headers={"Retry-After": "1"},
    )


def continues(run: Run) -> Unavailable:
    """What is told of a run that was admitted and goes on where its caller can't wait for it."""
    return Unavailable(
        f"The run {run.run_id} was admitted, but can't be ended by the process that was asked; another one goes on "
        f"with it. Read its result with GET /v1/runs/{run.run_id}, or try again with the same Idempotency-Key. "
        "Without that key, another try is another run.",
        code="run-continues",
        headers={"Retry-After": "2", "X-Run-Id": run.run_id},
        run_id=run.run_id,
    )
