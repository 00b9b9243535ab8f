"""A TCP proxy on loopback that misbehaves on demand, between a process under test and what it depends on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.support.ports import free_port

T = TypeVar("T")


class FaultyProxy:
    """Forwards `port` to another port of 127.0.0.1. It keeps its port through every fault.

    Its own thread serves it, so that the test may be synchronous or not. Every method returns once it is in effect.
    """

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self._target_port = target_port
        self._delay = 0.0
        self._server: asyncio.Server | None = None
        self._there: asyncio.Event
        self._back: asyncio.Event
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-proxy", daemon=True)
        self._thread.start()
        self._call(self._prepare())

    def slow(self, seconds: float) -> None:
        """Hold every piece of data back for so long, each way."""
        self._call(self._set_delay(seconds))

    def hang(self) -> None:
        """Accept connections and carry nothing, as a host that is frozen or a firewall that drops."""
        self._call(self._hang())

    def silence(self) -> None:
        """Carry what is sent there, and nothing back: what is asked for is done, and nobody hears of it."""
        self._call(self._silence())

    def refuse(self) -> None:
        """Reset every connection and refuse new ones, as when the process behind is gone."""
        self._call(self._refuse())

    def cut(self) -> None:
        """Reset the connections that there are; new ones are served."""
        self._call(self._cut())

    def heal(self) -> None:
        """Forward everything again, at once."""
        self._call(self._heal())

    def close(self) -> None:
        """End it for good."""
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _prepare(self) -> None:
        self._there, self._back = asyncio.Event(), asyncio.Event()
        await self._heal()

    async def _heal(self) -> None:
        self._delay = 0.0
        self._there.set()
        self._back.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _set_delay(self, seconds: float) -> None:
        self._delay = seconds

    async def _hang(self) -> None:
        self._there.clear()
        self._back.clear()

    async def _silence(self) -> None:
        self._back.clear()

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _cut(self) -> None:
        for writer in list(self._writers):
            reset(writer)

    async def _end(self) -> None:
        await self._refuse()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await self._cut()
        await asyncio.sleep(0)  # a transport that was aborted closes in the loop's next turn

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            self._writers.discard(writer)
            reset(writer)
            return
        self._writers.add(there_writer)
        try:
            await asyncio.gather(
                self._pump(reader, there_writer, self._there), self._pump(there_reader, writer, self._back)
            )
        finally:
            for end in (writer, there_writer):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()
                self._writers.discard(end)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await asyncio.sleep(self._delay)
                await flowing.wait()
                writer.write(data)
                await writer.drain()
        await flowing.wait()  # the end of a connection is data, too
        writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST instead of FIN: a fault, not an orderly end."""
    # Closing a socket that does not linger does that (socket(7)).
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
