"""A time limit for somebody else's answer, which does not run while this process itself stands still."""

from __future__ import annotations

import asyncio
from types import TracebackType

LATE = 0.1  # seconds by which a timer is late where the loop, or the whole machine, stood still


class Patience:
    """Raises TimeoutError, as asyncio.timeout does, when what is done within it takes more than so many seconds. Where
    it rings late, it waits once more for as long: an answer may lie there unread, or the other side have stood still as
    well, as all of a virtual machine does while it is moved.
    """

    __slots__ = ("_again", "_cancelling", "_handle", "_loop", "_rang", "_seconds", "_task")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._again = True
        self._rang = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "a limit is for a task"
        self._task = task
        self._cancelling = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_later(self._seconds, self._ring)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._handle.cancel()
        if self._rang and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _ring(self) -> None:
        if self._again and self._loop.time() - self._handle.when() > LATE:
            self._again = False
            self._handle = self._loop.call_later(self._seconds, self._ring)
        else:
            self._rang = True
            self._task.cancel()
