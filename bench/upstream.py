"""A model provider that answers every chat completion at once, with a fixed answer: `python -m bench.upstream FD`."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import cast

import httptools
import uvloop

_BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "fixed",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Eleven, I think."}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16},
    }
).encode()
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY) + _BODY


class _Server(asyncio.Protocol):
    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        if self._transport is not None:
            self._transport.write(_ANSWER)
        self._parser = httptools.HttpRequestParser(self)


async def _serve(listener: socket.socket) -> None:
    server = await asyncio.get_running_loop().create_server(_Server, sock=listener)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as _runner:
        _runner.run(_serve(socket.socket(fileno=int(sys.argv[1]))))
