"""Following a run's events: from the client's own channel while this process carries the run out, or from the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from kgents.agents import runs
from kgents.agents.events import Channel, RunEvent, load_events
from kgents.agents.model import Run
from kgents.agents.runner import end_event_of
from kgents.api.call import Call
from kgents.api.services import Services
from kgents.api.sse import PING_SECONDS
from kgents.errors import KgentsError, RateLimited, Unavailable
from kgents.store.engine import Scope

POLL_SECONDS = 1.0
LOOK_SECONDS = 1.0  # between two looks at the key of a stream, while it has events; without any, at each ping


class _Look:
    """Looks again at the key that a stream was opened with."""

    def __init__(self, call: Call) -> None:
        self._authenticate = call.authenticate
        self._clock = call.services.clock
        self._due = self._clock.monotonic() + LOOK_SECONDS

    async def again(self) -> None:
        """Raise Unauthenticated if the key has ended by now. Where nobody can say, since the database is away, the
        stream goes on, and is asked about at the next ping.
        """
        if self._clock.monotonic() < self._due:
            return
        pause = LOOK_SECONDS
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._authenticate()
        except (RateLimited, TimeoutError, Unavailable):
            pause = PING_SECONDS
        self._due = self._clock.monotonic() + pause


async def live(call: Call, channel: Channel) -> AsyncGenerator[RunEvent | None]:
    """The events of a run that this process carries out; None when it is time for a ping.

    Ends after the run's last event, or without it when the run was handed over or could not be recorded: then the
    record, or GET /v1/runs/{id}/events, tells the rest. Raises Unauthenticated once the caller's key has ended; the
    run goes on.
    """
    look = _Look(call)
    try:
        while True:
            try:
                event = await channel.get(PING_SECONDS)
            except EOFError:
                return
            await look.again()
            yield event
            if event is not None and event.terminal:
                return
    finally:
        channel.close()


async def recorded(call: Call, run: Run, after: int) -> AsyncGenerator[RunEvent | None]:
    """The events of a run after the given sequence, from any process; None when it is time for a ping.

    What the bus has comes in order, each once. When the bus is away, or no longer has the events of an old run, the
    run's last event still comes, made from its record, with the whole output. Ends early only when this process
    drains. Raises Unauthenticated once the caller's key has ended.
    """
    services = call.services
    look = _Look(call)
    seen = after
    waited = 0.0
    queue: asyncio.Queue[RunEvent] = asyncio.Queue(256)
    pump = asyncio.create_task(_pump(services, run.run_id, queue))
    try:
        while not services.draining.is_set():
            await look.again()
            try:
                event = await asyncio.wait_for(queue.get(), POLL_SECONDS)
            except TimeoutError:
                waited += POLL_SECONDS
                end = await _recorded_end(services, run)
                if end is not None and (end.sequence > seen or end.sequence == 0):
                    yield end
                    return
                if end is not None:
                    return
                if waited >= PING_SECONDS:
                    waited = 0.0
                    yield None
                continue
            if event.sequence > seen:
                seen = event.sequence
                yield event
            if event.terminal:
                return
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)


async def _pump(services: Services, run_id: str, queue: asyncio.Queue[RunEvent]) -> None:
    while True:
        try:
            async with aclosing(services.bus.events(run_id)) as chunks:
                async for chunk in chunks:
                    for event in load_events(chunk):
                        await queue.put(event)
        except Unavailable:
            await asyncio.sleep(POLL_SECONDS)


async def _recorded_end(services: Services, run: Run) -> RunEvent | None:
    try:
        current = await services.store.read(
            Scope.tenant(run.tenant_id), lambda connection: runs.get(connection, run.tenant_id, run.run_id)
        )
    except KgentsError:
        return None
    if not current.finished:
        return None
    type_, data = end_event_of(current)
    return RunEvent(current.last_event or 0, type_, data)
