"""Taking messages from a work queue: a pull consumer that outlives the server's restarts."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any, Self

import orjson
from nats.aio.msg import Msg

from kgents.bus.connection import Subscription
from kgents.bus.jetstream import ApiError, JetStream, new_inbox, status_of
from kgents.bus.model import BusUnavailable

EXPIRES = 30.0  # seconds that the server keeps a request for messages
IDLE_HEARTBEAT = 5.0  # seconds between the server's signs that it still has the request
RETRY = 0.5  # seconds between attempts when the server is there but the consumer is not
MAX_ACK_PENDING = 10_000
ACK_TIMEOUT = 5.0


class Delivery:
    """One message, leased to this process until `ack_wait` is over; then the server gives it to somebody else.

    `delivered` counts the times that it was handed out, this one included; a crash of the server may lose count.
    """

    __slots__ = ("_jetstream", "_reply", "data", "delivered", "message_id", "subject")

    def __init__(self, jetstream: JetStream, message: Msg) -> None:
        self._jetstream = jetstream
        self._reply = message.reply
        self.subject = message.subject
        self.data = message.data
        self.message_id = (message.headers or {}).get("Nats-Msg-Id")
        self.delivered = message.metadata.num_delivered

    async def ack(self) -> None:
        """Done: wait until the server has taken it off the queue. Raises BusUnavailable when that is not known; then
        the message may come again.
        """
        await self._jetstream.request(self._reply, b"+ACK", timeout=ACK_TIMEOUT)

    async def nak(self, delay: float = 0.0) -> None:
        """Not done: have it delivered again, `delay` seconds from now."""
        body = b" " + orjson.dumps({"delay": round(delay * 1_000_000_000)}) if delay > 0 else b""
        await self._jetstream.connection.publish(self._reply, b"-NAK" + body)

    async def in_progress(self) -> None:
        """Still at it: start the `ack_wait` again."""
        await self._jetstream.connection.publish(self._reply, b"+WPI")

    async def term(self) -> None:
        """Never to be delivered again, although it was not done."""
        await self._jetstream.request(self._reply, b"+TERM", timeout=ACK_TIMEOUT)


class Consumer:
    """An asynchronous iterator of deliveries that ends only when it or the bus is closed.

    Use it with `async with`, so that what it has fetched and not handed out goes back to the queue. Waiting for the
    next delivery may be cancelled without losing one.
    """

    def __init__(
        self,
        jetstream: JetStream,
        stream: str,
        durable: str,
        *,
        batch: int,
        ack_wait: float,
        max_deliver: int,
    ) -> None:
        self._jetstream = jetstream
        self._connection = jetstream.connection
        self._stream = stream
        self._durable = durable
        self._batch = batch
        self._config: dict[str, Any] = {
            "durable_name": durable,
            "name": durable,
            "ack_policy": "explicit",
            "deliver_policy": "all",
            "ack_wait": round(ack_wait * 1_000_000_000),
            "max_deliver": max_deliver,
            "max_ack_pending": MAX_ACK_PENDING,
        }
        self._buffer: deque[Delivery] = deque()
        self._changed = asyncio.Event()
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._pulls = 0
        self._asked = 0  # messages that the server may still send for the last request
        self._ready = False  # whether the consumer is known to exist
        self._refused = False
        self._heard = 0.0
        self._delivered = 0  # up to which message the stream may still hold acknowledged ones; 0 for none
        self._purged = 0.0  # when that was last looked at
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        while not self._closed and not self._connection.closed:
            if self._buffer:
                return self._buffer.popleft()
            self._changed.clear()
            try:
                await self._connection.wait()
                if self._asked <= 0 or self._silent():
                    await self._pull()
                elif self._delivered and asyncio.get_running_loop().time() - self._purged > IDLE_HEARTBEAT:
                    await self._purge(await self._api("INFO"))
            except BusUnavailable:
                self._asked = 0
                await asyncio.sleep(RETRY)
                continue
            if not self._buffer:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_HEARTBEAT):
                        await self._changed.wait()
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop, and give back what was fetched but not handed out."""
        self._closed = True
        self._changed.set()
        if self._subscription:
            await self._subscription.close()
        with contextlib.suppress(BusUnavailable):
            while self._buffer:
                await self._buffer.popleft().nak()

    def _silent(self) -> bool:
        """Whether the server has missed its heartbeats, and so has forgotten the request."""
        return asyncio.get_running_loop().time() - self._heard > 2 * IDLE_HEARTBEAT

    async def _pull(self) -> None:
        if self._subscription is None:
            self._inbox = new_inbox()
            self._subscription = Subscription(
                self._connection, f"{self._inbox}.*", self._received, on_connect=self._reconnected
            )
            await self._subscription.open()
        if self._refused:
            await asyncio.sleep(RETRY)
            self._ready = self._refused = False
        if not self._ready:
            await self._create()
        if self._buffer:
            return
        self._pulls += 1
        request = {
            "batch": self._batch,
            "expires": round(EXPIRES * 1_000_000_000),
            "idle_heartbeat": round(IDLE_HEARTBEAT * 1_000_000_000),
        }
        self._heard = asyncio.get_running_loop().time()
        self._asked = self._batch
        await self._connection.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._durable}",
            orjson.dumps(request),
            reply=f"{self._inbox}.{self._pulls}",
        )

    async def _create(self) -> None:
        info = await self._api("CREATE", {"stream_name": self._stream, "config": self._config, "action": ""})
        self._delivered = info["delivered"]["stream_seq"]
        await self._purge(info)
        self._ready = True

    async def _purge(self, info: dict[str, Any]) -> None:
        """Take what is acknowledged off the stream.

        A server that was started again, after its disk was full or its power was cut, may remember the acknowledgement
        of a message and still have it. It never hands it out, and counts it for ever as waiting. Such messages may
        lie behind others that wait for their acknowledgement, and those are waited for.
        """
        self._purged = asyncio.get_running_loop().time()
        floor = info["ack_floor"]["stream_seq"]
        if floor:
            try:
                await self._jetstream.api(f"STREAM.PURGE.{self._stream}", {"seq": floor + 1})
            except ApiError as error:
                raise BusUnavailable(f"the NATS server refused to purge {self._stream} ({error}).") from error
        if floor >= self._delivered:
            self._delivered = 0

    async def _api(self, verb: str, body: object = None) -> dict[str, Any]:
        try:
            return await self._jetstream.api(f"CONSUMER.{verb}.{self._stream}.{self._durable}", body)
        except ApiError as error:
            raise BusUnavailable(f"the NATS server refused the consumer {self._durable} ({error}).") from error

    def _reconnected(self) -> None:
        self._asked = 0
        self._ready = self._refused = False
        self._changed.set()

    def _received(self, message: Msg) -> None:
        self._heard = asyncio.get_running_loop().time()
        status = status_of(message)
        if status is None:
            self._asked -= 1
            self._buffer.append(Delivery(self._jetstream, message))
        elif status == "100":
            return
        elif message.subject == f"{self._inbox}.{self._pulls}":
            # The request is over: expired (408), the consumer is gone or has moved (409), or nobody answered (503).
            self._asked = 0
            self._refused = status != "408"
        self._changed.set()
