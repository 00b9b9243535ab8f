"""Carrying out background runs, and runs whose process died, from the work queue."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable

import orjson
import structlog

from kgents.agents import runs
from kgents.agents.conversation import load_message
from kgents.agents.executor import Execution, Executor
from kgents.agents.prepare import Planner
from kgents.agents.runs import Claim
from kgents.bus.consumer import Consumer
from kgents.bus.nats import Bus, Delivery
from kgents.bus.streams import RUNS_STREAM, RUNS_SUBJECT
from kgents.clock import Clock
from kgents.errors import KgentsError, Unavailable
from kgents.store.engine import Scope, Store
from kgents.telemetry import messaging, traces
from kgents.workers.shares import Shares

log = structlog.get_logger(__name__)

ACK_WAIT = 10.0  # seconds without a sign of life after which the queue gives a run to another worker
BUSY_DELAY = 2.0
SLOTS = 64  # runs at once
PATIENCE = 5.0  # seconds that a message waits here for its tenant's turn
LOOK = 0.5  # seconds between two looks at which other tenants wait, while none does
FOUND = 16  # of a tenant's runs that one look finds


class RunWorker:
    """Takes runs from the queue, at most `slots` at once, and carries each to its end.

    The queue gives runs out in their order, whoever they are of. The message of a run whose tenant has its share of the
    slots waits a moment in a slot of its own, and goes back. Where runs of tenants who have not their share are queued,
    wherever they stand in the queue, such a slot is for one of these.
    """

    def __init__(
        self,
        *,
        store: Store,
        bus: Bus,
        clock: Clock,
        planner: Planner,
        executor: Executor,
        source: str,
        slots: int = SLOTS,
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._planner = planner
        self._executor = executor
        self._source = source
        self._slots = asyncio.Semaphore(slots)
        self._shares = Shares(slots)
        self._found: deque[tuple[str, str]] = deque()
        self._last_tenant = ""
        self._look_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._beginning: set[asyncio.Task[Execution | float | None]] = set()
        self._deliveries: Consumer | None = None
        self._stopped = False

    async def run(self) -> None:
        """Work until cancelled or stopped. What is in hand then is the executor's to finish or hand over."""
        async with self._bus.consume(RUNS_STREAM, "workers", batch=1, ack_wait=ACK_WAIT) as self._deliveries:
            while not self._stopped:
                # A delivery that waited for a slot would lose its lease meanwhile.
                await self._slots.acquire()
                delivery = await anext(self._deliveries, None)
                if delivery is None:
                    return
                task = asyncio.create_task(self._handle(delivery))
                self._tasks.add(task)
                task.add_done_callback(self._done)

    async def stop(self) -> None:
        """Claim no more runs. On return what was claimed is in the executor's hands, to be drained, and what was only
        delivered goes back to the queue.
        """
        self._stopped = True
        if self._deliveries:
            await self._deliveries.aclose()
        if self._beginning:
            await asyncio.wait(self._beginning)

    async def finish(self, timeout: float) -> None:
        """Wait for the acknowledgements of what was in hand."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()

    async def _handle(self, delivery: Delivery) -> None:
        try:
            tenant_id, run_id = _named(delivery.data)
        except ValueError as error:
            log.error(
                "a message in the queue of runs can't be read and is taken off",
                message_id=delivery.message_id,
                reason=str(error),
            )
            await _tell(delivery.term())
            return
        delay: float | None
        instead: tuple[str, str] | None = None
        alive = asyncio.create_task(self._stay_alive(delivery))
        try:
            with messaging.process(RUNS_SUBJECT, contexts=messaging.contexts_of([delivery.data])):
                if turn := await self._turn(tenant_id):
                    delay, instead = turn
                else:
                    delay = await self._carry(tenant_id, run_id)
        finally:
            alive.cancel()
        await _tell(delivery.ack() if delay is None else delivery.nak(delay))
        if instead:  # whose own message will find it under way, or ended
            await self._carry(*instead)

    async def _turn(self, tenant_id: str) -> tuple[float, tuple[str, str] | None] | None:
        """None when it is the tenant's turn, with a slot taken for it. Otherwise after how long the message is to come
        again, here or to another worker, and whose run is to be carried out instead, of those that wait.
        """
        give_back = self._clock.monotonic() + PATIENCE
        while self._shares.full(tenant_id):
            if self._stopped:
                return 0.0, None
            if other := await self._other():
                return BUSY_DELAY, other
            if self._clock.monotonic() > give_back:
                return BUSY_DELAY, None
            await self._shares.left(tenant_id, LOOK)
        self._shares.take(tenant_id)
        return None

    async def _other(self) -> tuple[str, str] | None:
        """A queued run of a tenant who does not have its share, with a slot taken for it. Those that a look has found
        come first; after one that has found none there is no other for a while.
        """
        other = self._next_found()
        if other or self._clock.monotonic() < self._look_at:
            return other
        self._look_at = self._clock.monotonic() + LOOK
        full, last = self._shares.those_full(), self._last_tenant
        try:
            self._found += await self._store.read(
                Scope.system(), lambda connection: runs.first_queued(connection, FOUND, after=last, without=full)
            )
        except Exception as error:  # whatever it is, the message still waits for its turn
            log.warning("it can't be seen which tenants wait for a worker", exc_info=error)
        if other := self._next_found():
            self._look_at = 0.0
        return other

    def _next_found(self) -> tuple[str, str] | None:
        while self._found:
            tenant_id, run_id = self._found.popleft()
            if not self._shares.full(tenant_id) and not self._executor.knows(run_id):
                self._last_tenant = tenant_id
                self._shares.take(tenant_id)
                return tenant_id, run_id
        return None

    async def _stay_alive(self, delivery: Delivery) -> None:
        while True:
            await asyncio.sleep(ACK_WAIT / 3)
            try:
                await delivery.in_progress()
            except Unavailable:
                continue

    async def _carry(self, tenant_id: str, run_id: str) -> float | None:
        """Carry out a run for which a slot is taken, and give that back. Answers None when the queue may forget it, or
        after how long it is to come again.
        """
        try:
            return await self._work(tenant_id, run_id)
        except Exception as error:  # whatever it is, it must not end the worker
            log.exception("background run failed unexpectedly", exc_info=error)
            return BUSY_DELAY
        finally:
            self._shares.leave(tenant_id)

    async def _work(self, tenant_id: str, run_id: str) -> float | None:
        if self._stopped:
            return 0.0
        beginning = asyncio.create_task(self._begin(tenant_id, run_id))
        self._beginning.add(beginning)
        beginning.add_done_callback(self._beginning.discard)
        begun = await beginning
        if not isinstance(begun, Execution):
            return begun
        try:
            await begun.result()
        except KgentsError as error:
            log.info("background run was not finished here", run_id=run_id, reason=error.code)
        return None

    async def _begin(self, tenant_id: str, run_id: str) -> Execution | float | None:
        """Claim the run and start it. Otherwise answers as `_carry`."""
        if self._executor.knows(run_id):  # or another message of it is being claimed: it would be begun twice
            return BUSY_DELAY
        with self._executor.awaiting(run_id):
            try:
                claim = await self._claim(tenant_id, run_id, events_seen=False)
                if claim == "has-events":
                    # A claim while they can't be read would use up one of the run's attempts for nothing.
                    await self._bus.last_event(run_id)
                    claim = await self._claim(tenant_id, run_id, events_seen=True)
            except Unavailable:
                return BUSY_DELAY
        if not isinstance(claim, Claim):
            return BUSY_DELAY if claim == "busy" else None
        return await self._start(claim)

    async def _claim(self, tenant_id: str, run_id: str, *, events_seen: bool) -> Claim | str:
        instance, source, now = self._executor.instance, self._source, self._clock.now()
        with traces.sql("claim run"):
            return await self._store.write(
                Scope.tenant(tenant_id),
                lambda connection: runs.claim(
                    connection, tenant_id, run_id, instance, now, source=source, events_seen=events_seen
                ),
            )

    async def _start(self, claim: Claim) -> Execution | None:
        run = claim.run
        try:
            work = self._planner.work(
                run,
                claim.definition,
                [load_message(text) for text in claim.earlier],
                [load_message(text) for text in claim.steps],
            )
        except KgentsError as error:
            await self._executor.fail(run, error)
            return None
        return self._executor.start(work)


def _named(data: bytes) -> tuple[str, str]:
    """The tenant and the run that a message is about. Raises ValueError where it names none."""
    match orjson.loads(data):
        case {"tenant_id": str(tenant_id), "run_id": str(run_id)}:
            return tenant_id, run_id
    raise ValueError("it names no tenant and run")


async def _tell(ending: Awaitable[None]) -> None:
    try:
        await ending
    except Unavailable:
        log.warning("the queue was not told of a run's end; it will come again and be found finished")
