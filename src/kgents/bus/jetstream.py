"""Requests to JetStream that never hang: each is answered, times out, or fails with its connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any
from uuid import uuid4

import orjson
from nats.aio.msg import Msg

from kgents.bus.connection import Connection, Subscription
from kgents.bus.model import BusUnavailable

_NO_STREAM = 10059


class ApiError(Exception):
    """JetStream refused a request. `err_code` is the stable number of the reason."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("description", "unknown error")))
        self.err_code = int(error.get("err_code", 0))


class JetStream:
    """Sends requests over a connection and hands each answer to whoever waits for it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._waiting: dict[str, tuple[Callable[[Msg], None], asyncio.Future[Any]]] = {}
        self._tokens = count()
        self._inbox = new_inbox() + "."
        Subscription(connection, self._inbox + "*", self._answered, on_lost=self._fail)

    async def send(self, subject: str, payload: bytes, *, headers: dict[str, str] | None = None) -> asyncio.Future[Msg]:
        """Send a request; the future is its answer. The caller bounds the wait, and cancels the future to end it."""
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

        def answer(message: Msg) -> None:
            if future.done():
                return
            if status_of(message) == "503":
                self.connection.doubt()
                future.set_exception(BusUnavailable("no stream takes this message, or it has no leader now."))
            else:
                future.set_result(message)

        await self._ask(subject, payload, headers, answer, future)
        return future

    async def request(
        self, subject: str, payload: bytes = b"", *, headers: dict[str, str] | None = None, timeout: float
    ) -> Msg:
        """Send a request and wait for its one answer, for at most `timeout` seconds. Raises BusUnavailable."""
        try:
            async with asyncio.timeout(timeout):
                return await (await self.send(subject, payload, headers=headers))
        except TimeoutError as error:
            raise not_answered(timeout) from error

    async def collect(self, subject: str, payload: bytes, *, timeout: float) -> tuple[list[Msg], Msg]:
        """Send a request that is answered by several messages and a status: those messages, and the status."""
        future: asyncio.Future[tuple[list[Msg], Msg]] = asyncio.get_running_loop().create_future()
        messages: list[Msg] = []

        def answer(message: Msg) -> None:
            if status_of(message) is None:
                messages.append(message)
            elif not future.done():
                future.set_result((messages, message))

        try:
            async with asyncio.timeout(timeout):
                await self._ask(subject, payload, None, answer, future)
                return await future
        except TimeoutError as error:
            raise not_answered(timeout) from error

    async def api(self, name: str, body: Any = None, *, timeout: float = 5.0) -> dict[str, Any]:
        """Call JetStream's API `$JS.API.<name>` with a JSON body. Raises ApiError where JetStream refuses."""
        message = await self.request(f"$JS.API.{name}", orjson.dumps(body) if body else b"", timeout=timeout)
        answer: dict[str, Any] = orjson.loads(message.data)
        if "error" in answer:
            error = ApiError(answer["error"])
            if error.err_code == _NO_STREAM:
                self.connection.doubt()
            raise error
        return answer

    async def _ask(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None,
        handler: Callable[[Msg], None],
        future: asyncio.Future[Any],
    ) -> None:
        token = f"{next(self._tokens):x}"
        self._waiting[token] = handler, future
        future.add_done_callback(lambda _: self._waiting.pop(token, None))
        try:
            await self.connection.publish(subject, payload, reply=self._inbox + token, headers=headers)
        except BaseException:
            future.cancel()
            raise

    def _answered(self, message: Msg) -> None:
        waiting = self._waiting.get(message.subject[len(self._inbox) :])
        if waiting:
            waiting[0](message)

    def _fail(self) -> None:
        for _, future in list(self._waiting.values()):
            if not future.done():
                future.set_exception(self.connection.unavailable())
                future.exception()  # its waiter may be gone: then nobody needs to hear of it


def status_of(message: Msg) -> str | None:
    """The status of a message by which the server reports about a request; None for a message with content."""
    return message.headers.get("Status") if message.headers and not message.data else None


def new_inbox() -> str:
    """A subject that nobody else uses."""
    return f"_INBOX.{uuid4().hex}"


def not_answered(timeout: float) -> BusUnavailable:
    """The error of a request that was not answered in time."""
    return BusUnavailable(f"it did not answer within {timeout:g} s.")
