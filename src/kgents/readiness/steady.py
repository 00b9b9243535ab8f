"""Requests at a constant rate while something is broken; none of them is tried again."""

from __future__ import annotations

import asyncio
import threading
import time
from types import TracebackType
from typing import Self

import httpx2

from kgents.tls import trusted

PATIENCE = 15.0  # seconds for an answer
BODY = {"model": "echo", "messages": [{"role": "user", "content": "steady"}]}


class Steady:
    """`rate` chat completions a second from `with` to its end, each on time whatever becomes of the others. `failed`
    has a line for each that was not answered with 200.
    """

    def __init__(self, base: str, key: str, *, rate: float) -> None:
        self._base, self._key, self._rate = base, key, rate
        self._ending = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),), name="steady", daemon=True)
        self.sent = 0
        self.failed: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join(2 * PATIENCE)

    async def _run(self) -> None:
        headers = {"Authorization": f"Bearer {self._key}"}
        async with (
            httpx2.AsyncClient(
                base_url=self._base, headers=headers, timeout=PATIENCE, trust_env=False, verify=trusted()
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            following = time.monotonic()
            while not self._ending.is_set():
                self.sent += 1
                group.create_task(self._ask(client, self.sent))
                following += 1 / self._rate
                await asyncio.sleep(following - time.monotonic())

    async def _ask(self, client: httpx2.AsyncClient, number: int) -> None:
        try:
            answer = await client.post("/v1/chat/completions", json=BODY)
        except httpx2.HTTPError as error:
            self.failed.append(f"request {number}: {error or type(error).__name__}")
            return
        if answer.status_code != 200:
            self.failed.append(f"request {number}: {answer.status_code} {answer.text[:120]}")
