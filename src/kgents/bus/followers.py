"""Following a run's events: what is stored, then what comes, in order, without gap or repeat, for many at once.

A follower needs no consumer on the server. It reads what is stored with direct gets, and hears of what is new on
`kgents.live.<run id>`, where the stream repeats each message that it stored together with its stream sequence and the
sequence of the subject's message before it. When the two don't join up (the connection was lost, the follower was too
slow, a message went missing on its way), it reads from the stream again, beginning with the last message that it has
seen: if that one is not there unchanged, the stream has lost what the follower knows, and it says so.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Self

import orjson
from nats.aio.msg import Msg

from kgents.bus.connection import Subscription
from kgents.bus.jetstream import JetStream, status_of
from kgents.bus.model import BusUnavailable
from kgents.bus.streams import EVENTS_STREAM, EVENTS_SUBJECT, LIVE_SUBJECT

READ_MESSAGES, READ_BYTES = 64, 256 * 1024  # of one direct get
MOST_BYTES = 32 * 1024 * 1024  # of one that begins with a large message: two of the largest, and more
READS_AT_ONCE = 32
LIVE_LIMIT = 64  # messages that wait for a slow follower, before it has to read them from the stream
FIRST_CHECK, IDLE_CHECK = 1.0, 10.0  # seconds of silence after which the stream is asked
PATIENCE = 10.0  # seconds that the stream may not answer although there is a connection
CATCH_UP = 2.0  # seconds that a replica may be behind what was already announced
PAUSE, FAILURE_PAUSE = 0.05, 0.2  # seconds before reading again what was not there, and what could not be read
REQUEST_TIMEOUT = 5.0


class _Event(NamedTuple):
    sequence: int
    before: int
    time: str
    data: bytes


def _event(message: Msg) -> _Event:
    headers = message.headers or {}
    return _Event(
        int(headers["Nats-Sequence"]),
        int(headers.get("Nats-Last-Sequence", 0)),
        headers["Nats-Time-Stamp"],
        message.data,
    )


@dataclass(slots=True)
class _Topic:
    """The followers of one run in this process, which share a subscription."""

    followers: set[Follower]
    subscription: Subscription | None = None

    def heard(self, message: Msg) -> None:
        event = _event(message)
        for follower in self.followers:
            follower.heard(event)

    def reconnected(self) -> None:
        for follower in self.followers:
            follower.check()


class Followers:
    """All followers of this process."""

    def __init__(self, jetstream: JetStream) -> None:
        self.jetstream = jetstream
        self.reads = asyncio.Semaphore(READS_AT_ONCE)
        self._topics: dict[str, _Topic] = {}

    def follow(self, run_id: str) -> Follower:
        """A new follower of a run, which need not have started."""
        return Follower(self, run_id)

    async def join(self, follower: Follower) -> None:
        """Have a follower hear of what is new."""
        topic = self._topics.get(follower.run_id)
        if topic:
            topic.followers.add(follower)
            return
        topic = self._topics[follower.run_id] = _Topic({follower})
        topic.subscription = Subscription(
            self.jetstream.connection,
            f"{LIVE_SUBJECT}.{follower.run_id}",
            topic.heard,
            on_connect=topic.reconnected,
        )
        await topic.subscription.open()

    async def leave(self, follower: Follower) -> None:
        """Stop that."""
        topic = self._topics.get(follower.run_id)
        if topic is None or follower not in topic.followers:
            return
        topic.followers.discard(follower)
        if not topic.followers:
            del self._topics[follower.run_id]
            if topic.subscription:
                await topic.subscription.close()


class Follower:
    """An asynchronous iterator of the payloads on one run's subject, from the first that is stored.

    It does not end by itself; raises BusUnavailable when the stream lost what was already handed out, or does not
    answer. It waits through a lost connection. Waiting for the next payload may be cancelled without losing one. Use
    it with `async with`.
    """

    def __init__(self, hub: Followers, run_id: str) -> None:
        self.run_id = run_id
        self._hub = hub
        self._jetstream = hub.jetstream
        self._connection = hub.jetstream.connection
        self._ready: deque[bytes] = deque()
        self._live: deque[_Event] = deque()
        self._changed = asyncio.Event()
        self._joined = False
        self._behind = True
        self._last: _Event | None = None
        self._target = 0  # the stream is known to hold the subject's messages up to this sequence
        self._check_after = FIRST_CHECK
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._closed and not self._connection.closed:
            if self._ready:
                return self._ready.popleft()
            if not self._joined:
                self._joined = True
                await self._hub.join(self)
            if self._behind:
                await self._catch_up()
            elif self._live:
                self._take(self._live.popleft())
            else:
                await self._wait()
        await asyncio.sleep(0)  # so that a caller who follows again at once does not hold up everybody else
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop following."""
        self._closed = True
        self._changed.set()
        await self._hub.leave(self)

    def heard(self, event: _Event) -> None:
        """The stream stored a message."""
        if self._behind:
            self._target = max(self._target, event.sequence)
        elif len(self._live) >= LIVE_LIMIT:
            self._live.clear()
            self._target = max(self._target, event.sequence)
            self._behind = True
        else:
            self._live.append(event)
        self._changed.set()

    def check(self) -> None:
        """The connection is a new one: something may have been missed."""
        self._behind = True
        self._live.clear()
        self._changed.set()

    def _take(self, event: _Event) -> None:
        sequence = self._last.sequence if self._last else 0
        if event.sequence <= sequence:
            return
        if event.before != sequence:
            self._live.clear()
            self._target = max(self._target, event.sequence)
            self._behind = True
            return
        self._accept(event)

    def _accept(self, event: _Event) -> None:
        self._last = event._replace(data=b"")
        self._ready.append(event.data)
        self._check_after = IDLE_CHECK

    async def _wait(self) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(self._check_after):
                await self._changed.wait()
        except TimeoutError:
            self._check_after = IDLE_CHECK
            self._behind = True

    async def _catch_up(self) -> None:
        """Read on from the stream until something came or nothing is missing."""
        clock = asyncio.get_running_loop().time
        started = clock()
        most = READ_BYTES
        while True:
            await self._connection.wait()
            if self._connection.closed:
                return
            try:
                events, complete = await self._read(most)
            except BusUnavailable:
                if not self._connection.state.connected:
                    started = clock()
                elif clock() - started > PATIENCE:
                    raise
                await asyncio.sleep(FAILURE_PAUSE)
                continue
            known = self._known(events)
            if known or self._last is None:
                fresh = events[1:] if known else events
                for event in fresh:
                    self._accept(event)
                reached = self._last.sequence if self._last else 0
                if fresh and not complete:
                    return  # there is more: read it when this was handed out
                if not complete and most < MOST_BYTES:
                    most *= 2  # the message that was seen has taken all the room
                    continue
                if reached >= self._target:
                    self._behind = False
                    return
                if fresh:
                    return
            if clock() - started > CATCH_UP:
                raise _lost(self.run_id)
            await asyncio.sleep(PAUSE)

    def _known(self, events: list[_Event]) -> bool:
        """Whether a read begins with the last message that was seen; False also where nothing was seen yet or nothing
        was read. Raises BusUnavailable where it begins with another.
        """
        if self._last is None or not events:
            return False
        if (events[0].sequence, events[0].time) != (self._last.sequence, self._last.time):
            raise _lost(self.run_id)
        return True

    async def _read(self, most: int) -> tuple[list[_Event], bool]:
        """Messages from the last that was seen, at most so many bytes of them but for the first, and whether they are
        all there are.
        """
        request = {
            "next_by_subj": f"{EVENTS_SUBJECT}.{self.run_id}",
            "seq": self._last.sequence if self._last else 1,
            "batch": READ_MESSAGES,
            "max_bytes": most,
        }
        async with self._hub.reads:
            messages, end = await self._jetstream.collect(
                f"$JS.API.DIRECT.GET.{EVENTS_STREAM}", orjson.dumps(request), timeout=REQUEST_TIMEOUT
            )
        status = status_of(end)
        if status == "404":
            return [], True
        if status != "204":
            raise BusUnavailable(f"the NATS server can't read the stream {EVENTS_STREAM} (status {status}).")
        return [_event(message) for message in messages], (end.headers or {}).get("Nats-Num-Pending") == "0"


def _lost(run_id: str) -> BusUnavailable:
    return BusUnavailable(
        f"the stream {EVENTS_STREAM} no longer has the last event of {run_id} that was handed out.",
        detail="The event bus restarted and can't go on where it was. Open the stream again after your last event.",
        code="events-lost",
    )
