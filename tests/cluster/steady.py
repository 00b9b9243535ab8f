"""An open loop of requests that goes on while a cluster is changed, each of them noted for the checker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from tests.faults.history import Call, History
from tests.faults.load import OPEN, Connection, Cut

PATIENCE = 15.0  # seconds for an answer
DRAIN = 30.0  # seconds for what is under way at the end


class Steady:
    """So many requests a second from `with` to its end, whatever comes of them. None is tried again: each that is not
    answered well is in `failed`.
    """

    def __init__(self, url: str, key: str, history: Path, *, rate: float) -> None:
        self._url, self._key = url, key
        self.rate = rate
        self.history = History(history)
        self.failed: list[str] = []
        self.sent = 0
        self._ending = False
        self._idle: deque[Connection] = deque()
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),), name="steady", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        self._thread.join(DRAIN + PATIENCE)
        self.history.close()

    async def _run(self) -> None:
        under_way: set[asyncio.Task[None]] = set()
        following = time.monotonic()
        while not self._ending:
            self.sent += 1
            task = asyncio.create_task(self._ask(f"s{self.sent}"))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            following += 1 / self.rate
            await asyncio.sleep(following - time.monotonic())
        if under_way:
            await asyncio.wait(under_way, timeout=DRAIN)
        for connection in self._idle:
            connection.close()

    async def _ask(self, name: str) -> None:
        connection = self._idle.pop() if self._idle else Connection(self._url, self._key, patience=PATIENCE)
        body = {"model": "echo", "messages": [{"role": "user", "content": f"{name} of a steady client"}]}
        sent = time.monotonic()
        try:
            status, answer = await connection.post("/v1/chat/completions", body)
        except Cut as error:
            self.failed.append(f"{name} after {time.monotonic() - sent:.2f} s: {error}")
            self.history.add(Call(name, "unknown", 0, sent, time.monotonic(), 1))
            return
        self._idle.append(connection)
        now = time.monotonic()
        if status == 200:
            document = orjson.loads(answer)
            used = document["usage"]
            run = str(document["id"]).removeprefix("chatcmpl-")
            tokens = (used["prompt_tokens"], used["completion_tokens"])
            self.history.add(Call(name, "ok", status, sent, now, 1, run, *tokens))
            return
        self.failed.append(f"{name}: {status} {answer[:200]!r}")
        refused = not any(code in answer for code in OPEN)
        self.history.add(Call(name, "refused" if refused else "unknown", status, sent, now, 1))


def told(failed: Sequence[str]) -> str:
    """The first of what failed, and how many there were."""
    return f"{len(failed)} failed: " + "; ".join(failed[:5])
