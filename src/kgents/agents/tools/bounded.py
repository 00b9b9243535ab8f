"""Reading what another server sends without letting it fill the memory."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

import httpx2

_PIECE = 65_536


class BoundedStream(httpx2.AsyncByteStream):
    """A body that is decompressed piece by piece and ends in httpx2.ReadError when it is longer than its limit."""

    def __init__(self, stream: httpx2.AsyncByteStream, max_bytes: int, *, gzip: bool) -> None:
        self._stream = stream
        self._left = max_bytes
        self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS) if gzip else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            if self._inflate is None:
                yield self._counted(data)
                continue
            while data:
                if self._inflate.eof:
                    return  # zlib would keep whatever follows, and copy all of it with each piece
                try:
                    piece = self._inflate.decompress(data, _PIECE)
                except zlib.error as error:
                    raise httpx2.ReadError("the body is not valid gzip") from error
                data = self._inflate.unconsumed_tail
                if piece:
                    yield self._counted(piece)
        if self._inflate is not None and (rest := self._inflate.flush()):
            yield self._counted(rest)

    def _counted(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise httpx2.ReadError("the body is longer than allowed")
        return data

    async def aclose(self) -> None:
        """Close the connection's side of the body."""
        await self._stream.aclose()
