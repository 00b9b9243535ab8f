"""Load from this process: streams on an open loop's schedule, for their time to first token; and users on a closed
loop.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from math import isnan, nan

import aiohttp

from kgents.load.measured import LOST, Counts, Sample, Samples, good
from kgents.load.traffic import Request

TIMEOUT = 60.0  # seconds that an answer may take


def session() -> aiohttp.ClientSession:
    """A client without a bound on connections: who waits for one would start late."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3.0)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    return aiohttp.ClientSession(connector=connector, timeout=timeout)


async def streams(url: str, requests: Sequence[Request], rate: float, seconds: float, counts: Counts) -> Samples:
    """`rate` streams a second begin, for `seconds`; each is read to its end."""
    samples = Samples()
    async with session() as http, asyncio.TaskGroup() as tasks:
        began = time.perf_counter()
        for number in range(round(rate * seconds)):
            meant = began + (number + 1) / rate
            await asyncio.sleep(meant - time.perf_counter())
            request = requests[number % len(requests)]
            tasks.create_task(_stream(http, url, request, meant, began, samples, counts))
    return samples


async def _stream(
    http: aiohttp.ClientSession,
    url: str,
    request: Request,
    meant: float,
    began: float,
    samples: Samples,
    counts: Counts,
) -> None:
    late = time.perf_counter() - meant
    first, whole, status = nan, False, LOST
    try:
        async with _sent(http, url, request) as answer:
            async for line in answer.content:
                if isnan(first) and _is_token(line):
                    first = time.perf_counter() - meant
                whole = whole or line.startswith(b"data: [DONE]")
            status = answer.status
    except (aiohttp.ClientError, TimeoutError, ConnectionError):
        status = LOST
    if good(status) and (isnan(first) or not whole):
        status = LOST
    took = time.perf_counter() - meant
    samples.add(Sample(request.kind, meant - began, late, took, status, first if good(status) else nan))
    counts.add(status, first if good(status) else took)


def _is_token(line: bytes) -> bool:
    """Whether a chunk says something: the first one comes at once, with a role and an empty text."""
    if not line.startswith(b"data: {"):
        return False
    try:
        choices = json.loads(line[len(b"data: ") :]).get("choices") or []
    except ValueError:  # cut off
        return False
    return any((choice.get("delta") or {}).get("content") for choice in choices)


async def users(
    url: str, requests: Sequence[Request], *, users: int, wait: float, seconds: float, counts: Counts
) -> Samples:
    """So many users that each send a request, await its answer and `wait` seconds, and begin again, for `seconds`."""
    samples = Samples()
    async with session() as http, asyncio.TaskGroup() as tasks:
        began = time.perf_counter()
        for number in range(users):
            own = requests[number::users]
            tasks.create_task(_user(http, url, own, wait, began, seconds, samples, counts))
    return samples


async def _user(
    http: aiohttp.ClientSession,
    url: str,
    requests: Sequence[Request],
    wait: float,
    began: float,
    seconds: float,
    samples: Samples,
    counts: Counts,
) -> None:
    number = 0
    while (started := time.perf_counter()) < began + seconds:
        request = requests[number % len(requests)]
        number += 1
        try:
            async with _sent(http, url, request) as answer:
                await answer.read()
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            status = LOST
        took = time.perf_counter() - started
        samples.add(Sample(request.kind, started - began, 0.0, took, status))
        counts.add(status, took)
        await asyncio.sleep(wait)


def _sent(
    http: aiohttp.ClientSession, url: str, request: Request
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    headers = {"Authorization": f"Bearer {request.key}", "Content-Type": "application/json"}
    return http.request(request.method, url + request.path, data=request.body, headers=headers)
