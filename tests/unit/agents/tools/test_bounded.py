"""Bodies of other servers, read piece by piece."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import httpx2

from kgents.agents.tools.bounded import BoundedStream, Budget


class Endless(httpx2.AsyncByteStream):
    """A body that never ends after what it `begins` with; `sent` counts its pieces."""

    def __init__(self, begins: bytes) -> None:
        self._begins = begins
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._begins
        while True:
            self.sent += 1
            yield b"junk"


async def test_what_follows_gzip_data_is_not_read() -> None:
    endless = Endless(gzip.compress(b"hello"))
    read = [piece async for piece in BoundedStream(endless, Budget(1000), gzip=True)]
    assert b"".join(read) == b"hello"
    assert endless.sent == 1
