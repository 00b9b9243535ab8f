"""Reading what another server sends without letting it fill the memory."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

import httpx2

_PIECE = 65_536
_MARKS = (b"[", b"{", b",", b":")


class Budget:
    """What answers may hold together: so many bytes, and so many marks of JSON's structure, in texts or not.

    Each mark may become an object of a hundred bytes and more, so marks are counted before anything parses them.
    """

    def __init__(self, max_bytes: int, max_marks: int | None = None) -> None:
        self._max_bytes = max_bytes
        self._max_marks = max_bytes if max_marks is None else max_marks
        self.bytes = 0
        self.marks = 0
        self.spent = False

    def take(self, data: bytes) -> None:
        """Count decompressed bytes. Raises httpx2.ReadError when there is no room for them."""
        if not self.has_room(len(data), sum(map(data.count, _MARKS))):
            raise httpx2.ReadError("the body is longer than allowed")

    def has_room(self, size: int, marks: int) -> bool:
        """Whether so many bytes and marks fit in, which then are; else the budget counts as `spent`."""
        fits = self.bytes + size <= self._max_bytes and self.marks + marks <= self._max_marks
        if fits:
            self.bytes += size
            self.marks += marks
        else:
            self.spent = True
        return fits


class BoundedStream(httpx2.AsyncByteStream):
    """A body that is decompressed piece by piece and ends in httpx2.ReadError when its budget does not allow more."""

    def __init__(self, stream: httpx2.AsyncByteStream, budget: Budget, *, gzip: bool) -> None:
        self._stream = stream
        self._budget = budget
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
        self._budget.take(data)
        return data

    async def aclose(self) -> None:
        """Close the connection's side of the body."""
        await self._stream.aclose()
