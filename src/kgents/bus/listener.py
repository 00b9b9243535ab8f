"""Hearing what is broadcast."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Self

from nats.aio.msg import Msg

from kgents.bus.connection import Connection, Subscription
from kgents.bus.model import Message

LIMIT = 1000  # messages that wait; the oldest goes when there are more


class Listener:
    """An asynchronous iterator of the messages broadcast on a subject while this process is connected.

    It ends when it or the bus is closed. Waiting may be cancelled without losing a message. Use it with `async with`:
    from then on it hears everything.
    """

    def __init__(self, connection: Connection, subject: str) -> None:
        self._connection = connection
        self._subject = subject
        self._messages: deque[Message] = deque(maxlen=LIMIT)
        self._changed = asyncio.Event()
        self._subscription: Subscription | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        await self._listen()
        while not self._messages:
            if self._closed or self._connection.closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._messages.popleft()

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop listening."""
        self._closed = True
        self._changed.set()
        if self._subscription:
            await self._subscription.close()

    async def _listen(self) -> None:
        if self._subscription is None:
            self._subscription = Subscription(
                self._connection, self._subject, self._received, on_connect=self._changed.set
            )
            await self._subscription.open()

    def _received(self, message: Msg) -> None:
        self._messages.append(Message(message.subject, message.data))
        self._changed.set()
