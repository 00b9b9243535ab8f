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
LEAST_SENT = 0.9  # of what was to be sent
BODY = {"model": "echo", "messages": [{"role": "user", "content": "steady"}]}


class Steady:
    """`rate` chat completions a second from `with` to its end, each on time whatever becomes of the others. `failed`
    has a line for each that was not answered with 200, and `lacking` says why they are no load that shows anything; it
    is empty where they are.
    """

    def __init__(self, base: str, key: str, *, rate: float) -> None:
        self._base, self._key, self._rate = base, key, rate
        self._begun, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="steady", daemon=True)
        self._error: BaseException | None = None
        self.sent = 0
        self.failed: list[str] = []
        self.lacking = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._begun.wait(PATIENCE)
        self._since = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wanted = max(1, int(self._rate * (time.monotonic() - self._since)))
        self._ending.set()
        self._thread.join(2 * PATIENCE)
        if self._error is not None:
            self.lacking = f"The load broke off: {type(self._error).__name__}: {self._error}."
        elif self._thread.is_alive():
            self.lacking = f"Some requests were still open after {2 * PATIENCE:.0f} s."
        elif self.sent < LEAST_SENT * wanted:
            self.lacking = f"Only {self.sent} of {wanted} requests were sent in time."

    def _work(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseExceptionGroup as group:  # of the requests' tasks: the first one's error says it
            self._error = group.exceptions[0]
        except BaseException as error:  # it may be anything, and a thread's error is seen by nobody else
            self._error = error
        finally:
            self._begun.set()

    async def _run(self) -> None:
        headers = {"Authorization": f"Bearer {self._key}"}
        async with (
            httpx2.AsyncClient(
                base_url=self._base, headers=headers, timeout=PATIENCE, trust_env=False, verify=trusted()
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            following = time.monotonic()
            self._begun.set()
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
