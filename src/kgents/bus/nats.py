"""The bus: NATS JetStream for what must arrive, core NATS for what may be missed. Bytes in, bytes out."""

from __future__ import annotations

import asyncio
import base64
import re
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from weakref import WeakSet

import orjson
from nats.aio.msg import Msg

from kgents.bus.connection import Connection
from kgents.bus.consumer import Consumer, Delivery
from kgents.bus.followers import Follower, Followers
from kgents.bus.jetstream import ApiError, JetStream, not_answered
from kgents.bus.listener import Listener
from kgents.bus.model import Ack, Backlog, BusState, BusUnavailable, Message, WrongLastSequence
from kgents.bus.streams import EVENTS_STREAM, EVENTS_SUBJECT, STREAMS, ensure_streams
from kgents.clock import SECOND, Clock, from_datetime
from kgents.config import Settings

__all__ = ["Ack", "Backlog", "Bus", "BusState", "BusUnavailable", "Delivery", "Message", "WrongLastSequence"]

WINDOW = 512  # messages of publish_many in flight
STALE = 15.0  # seconds for which nobody tried again: those who have something to publish try more often
_NO_MESSAGE = 10037
_WRONG_LAST_SEQUENCE = {10071, 10164}


class _Failure(NamedTuple):
    """Why a message was not stored, and when (monotonic)."""

    why: str
    at: float


class Bus:
    """One for each process. It can be used at once after `start()`; while the server is away every operation raises
    BusUnavailable soon, and iterators wait.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._replicas = settings.nats_replicas
        self._clock = clock
        self._connection = Connection(settings, clock, self.ensure_streams)
        self._jetstream = JetStream(self._connection)
        self._followers = Followers(self._jetstream)
        self._consumers: WeakSet[Consumer] = WeakSet()
        self._failing: dict[str, _Failure] = {}

    @property
    def state(self) -> BusState:
        """Whether there is a connection and the streams are in place, since when, and why not."""
        return self._connection.state

    async def failing(self) -> dict[str, str]:
        """Why the last message for a stream was not stored, by the stream's subject (such as `kgents.usage`), as long
        as none was stored since. A server whose disk is full answers a ping and stores nothing.

        One that was not tried again for a while counts until its stream answers: somebody else may have stored it.
        """
        for subject, failure in list(self._failing.items()):
            stale = self._clock.monotonic() - failure.at > STALE
            if stale and await self._answers(subject) and self._failing.get(subject) is failure:
                del self._failing[subject]
        return {subject: failure.why for subject, failure in self._failing.items()}

    async def _answers(self, subject: str) -> bool:
        try:
            found = await self.pending(STREAMS[subject], timeout=0.3)
        except (BusUnavailable, KeyError):
            return False
        return found.replicas_current > found.replicas / 2  # with fewer it stores nothing, though it may answer yet

    async def start(self) -> None:
        """Begin to connect; never waits for the server and never fails because of it."""
        self._connection.start()

    async def close(self) -> None:
        """Give back what was fetched and not handed out, send what was handed over, and end every iterator; within
        a few seconds even where the server does not answer.
        """
        for consumer in list(self._consumers):
            await consumer.aclose()
        await self._connection.close()

    async def ensure_streams(self) -> None:
        """Create or update the streams. It happens by itself on each new connection."""
        await ensure_streams(self._jetstream, self._replicas)

    async def publish(
        self,
        subject: str,
        payload: bytes,
        *,
        message_id: str | None = None,
        expect_last_on_subject: int | None = None,
        timeout: float = 5.0,
    ) -> Ack:
        """Store a message in the stream of its subject; on return it is stored.

        The same `message_id` within the stream's window (2 minutes; 10 s for run events) is stored once. With
        `expect_last_on_subject`, the message is stored only if the subject's last message has that stream sequence (0:
        there is none); otherwise raises WrongLastSequence, also when it was this very message that is already stored.
        Raises BusUnavailable when it is not known to be stored within `timeout` seconds, and TooLarge.
        """
        headers = _headers(message_id, expect_last_on_subject)
        try:
            answer = await self._jetstream.request(subject, payload, headers=headers, timeout=timeout)
            ack = _ack(answer, subject, expect_last_on_subject)
        except BusUnavailable as error:
            self._fails(subject, error)
            raise
        except WrongLastSequence:  # which the stream looked up
            self._works(subject)
            raise
        self._works(subject)
        return ack

    def _fails(self, subject: str, error: BusUnavailable) -> None:
        self._failing[_root(subject)] = _Failure(error.why, self._clock.monotonic())

    def _works(self, subject: str) -> None:
        self._failing.pop(_root(subject), None)

    async def publish_many(
        self, subject: str, messages: Iterable[tuple[str, bytes]], *, timeout: float = 10.0
    ) -> list[Ack | Exception]:
        """Store messages, given as (message id, payload), with many in flight; answers in their order.

        Each message waits at most `timeout` seconds; once one was not answered in time the rest is not tried.
        """
        results: list[Ack | Exception] = []
        flying: deque[tuple[asyncio.Future[Msg], float]] = deque()
        clock = asyncio.get_running_loop().time
        stop: Exception | None = None

        async def land() -> None:
            nonlocal stop
            future, deadline = flying.popleft()
            try:
                async with asyncio.timeout_at(deadline):
                    results.append(_ack(await future, subject, None))
            except TimeoutError:
                stop = not_answered(timeout)
                results.append(stop)
            except Exception as error:
                results.append(error)

        for message_id, payload in messages:
            if len(flying) >= WINDOW:
                await land()
            deadline = clock() + timeout
            try:
                if stop:
                    raise stop
                async with asyncio.timeout_at(deadline):
                    future = await self._jetstream.send(subject, payload, headers=_headers(message_id, None))
            except Exception as error:
                future = asyncio.get_running_loop().create_future()
                future.set_exception(error)
            flying.append((future, deadline))
        while flying:
            await land()
        if results and isinstance(results[-1], BusUnavailable):
            self._fails(subject, results[-1])
        elif any(isinstance(result, Ack) for result in results):
            self._works(subject)
        return results

    def consume(self, stream: str, durable: str, *, batch: int, ack_wait: float, max_deliver: int = -1) -> Consumer:
        """Take messages from a work queue together with all who use the same `durable` name.

        At most `batch` deliveries are fetched ahead; each is leased for `ack_wait` seconds from then. A message is
        delivered at most `max_deliver` times (-1: until it is acknowledged).
        """
        consumer = Consumer(self._jetstream, stream, durable, batch=batch, ack_wait=ack_wait, max_deliver=max_deliver)
        self._consumers.add(consumer)
        return consumer

    def events(self, run_id: str) -> Follower:
        """Follow a run: each payload on `kgents.events.<run id>` in order, from the first that is still stored."""
        return self._followers.follow(run_id)

    async def last_event(self, run_id: str) -> tuple[int, bytes] | None:
        """Stream sequence and payload of a run's last message, as the stream's leader has it; None if there is none.

        Raises BusUnavailable.
        """
        try:
            answer = await self._jetstream.api(
                f"STREAM.MSG.GET.{EVENTS_STREAM}", {"last_by_subj": f"{EVENTS_SUBJECT}.{run_id}"}
            )
        except ApiError as error:
            if error.err_code == _NO_MESSAGE:
                return None
            raise BusUnavailable(f"the NATS server can't read the stream {EVENTS_STREAM} ({error}).") from error
        message = answer["message"]
        return message["seq"], base64.b64decode(message.get("data", ""))

    async def broadcast(self, subject: str, payload: bytes) -> None:
        """Tell every process that listens now; who is away misses it. Raises BusUnavailable, TooLarge."""
        await self._connection.publish(subject, payload)

    def listen(self, subject: str) -> Listener:
        """Hear what is broadcast on a subject (`*` stands for any one word)."""
        return Listener(self._connection, subject)

    async def ping(self, timeout: float = 1.0) -> float:
        """Milliseconds of a round trip to JetStream. Raises BusUnavailable after `timeout` seconds."""
        started = self._clock.monotonic()
        try:
            await self._jetstream.api("INFO", timeout=timeout)
        except ApiError as error:
            raise BusUnavailable(f"JetStream is not working on the NATS server ({error}).") from error
        return (self._clock.monotonic() - started) * 1000

    async def pending(self, stream: str, timeout: float = 1.0) -> Backlog:
        """What waits in a stream. Raises BusUnavailable."""
        try:
            info = await self._jetstream.api(f"STREAM.INFO.{stream}", timeout=timeout)
        except ApiError as error:
            raise BusUnavailable(f"the NATS server can't tell about the stream {stream} ({error}).") from error
        state = info["state"]
        age = max(0.0, (self._clock.now() - _micros(state["first_ts"])) / SECOND) if state["messages"] else 0.0
        last = state["last_seq"]
        first = state["first_seq"] if state["messages"] else last + 1
        replicas = info["config"]["num_replicas"]
        return Backlog(state["messages"], state["bytes"], age, first, last, replicas, _current(info.get("cluster")))


def _current(cluster: Mapping[str, Any] | None) -> int:
    """How many servers have all of a stream; a server that is alone names no cluster."""
    if not cluster:
        return 1
    others = cluster.get("replicas") or ()
    return bool(cluster.get("leader")) + sum(bool(each["current"]) and not each.get("offline") for each in others)


def _root(subject: str) -> str:
    """A subject without a run's id."""
    return ".".join(subject.split(".", 2)[:2])


def _headers(message_id: str | None, expect_last_on_subject: int | None) -> dict[str, str] | None:
    headers = {}
    if message_id is not None:
        headers["Nats-Msg-Id"] = message_id
    if expect_last_on_subject is not None:
        headers["Nats-Expected-Last-Subject-Sequence"] = str(expect_last_on_subject)
    return headers or None


def _ack(answer: Msg, subject: str, expected: int | None) -> Ack:
    try:
        body = orjson.loads(answer.data)
        if body.get("error") is None:
            return Ack(body["seq"], body.get("duplicate", False))
        code, description = body["error"].get("err_code"), str(body["error"].get("description", ""))
    except (ValueError, AttributeError, KeyError, TypeError):
        raise BusUnavailable("what the NATS server answered to a message can't be read.") from None
    if code in _WRONG_LAST_SEQUENCE and expected is not None:
        actual = re.search(r"\d+$", description)
        raise WrongLastSequence(subject, expected, int(actual[0]) if actual else None)
    raise BusUnavailable(f"the NATS server did not store a message ({description}).")


def _micros(timestamp: str) -> int:
    """Microseconds since the epoch of an RFC 3339 time in UTC with up to nine decimals, as NATS writes it."""
    whole, _, decimals = timestamp.rstrip("Z").partition(".")
    return from_datetime(datetime.fromisoformat(whole + "+00:00")) + int((decimals + "000000")[:6])
