"""Clients cut their streams at random bytes: what the model reported is metered all the same, to the token."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import orjson
import pytest

from tests.faults.checker import METERS, metered
from tests.faults.systems import FULL, new_seed, running
from tests.support.results import record
from tests.support.tenants import Tenant, tenant_of
from tests.support.waiting import wait_until

STREAMS = 1000 if FULL else 60
AT_ONCE = 20
WORDS = 40
LENGTH = 12_000  # bytes, about, of a whole stream
COMMAND = "tests/faults/test_cut_streams.py"


async def cut_all(tenant: Tenant, agent: str, seed: int) -> None:
    """Open the streams, a few at once, and leave each after a number of bytes that the seed chooses."""
    random = Random(seed)
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, after: int) -> None:
        async with turns:
            await _cut(tenant, agent, number, after)

    await asyncio.gather(*(one(number, random.randrange(1, LENGTH)) for number in range(STREAMS)))


async def _cut(tenant: Tenant, agent: str, number: int, after: int) -> None:
    url = httpx2.URL(tenant.up.url)
    body = {
        "model": agent,
        "stream": True,
        "messages": [{"role": "user", "content": f"/sleep 0.002 /words {WORDS + number % 7}"}],
    }
    content = orjson.dumps(body)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: kgents\r\nContent-Type: application/json\r\n"
        + f"Authorization: Bearer {tenant.key}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    left = after
    async with asyncio.timeout(30):
        # Without a byte of the answer the run may not have been admitted; from the first one on it counts.
        while left > 0 and (part := await reader.read(left)):
            left -= len(part)
            if part.endswith(b"0\r\n\r\n"):
                break
    writer.transport.abort()


def runs_of(tenant: Tenant) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = tenant.http.get("/v1/runs", params={"limit": "100", **after}).raise_for_status().json()
        found += page["data"]
        if not page["has_more"]:
            return found
        after = {"after": page["last_id"]}


def all_ended(tenant: Tenant) -> bool:
    return not any(
        tenant.http.get("/v1/runs", params={"status": status}).raise_for_status().json()["data"]
        for status in ("queued", "running")
    )


@pytest.mark.parametrize("dialect", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_streams_that_are_cut_are_metered_to_the_token(tmp_path: Path, dialect: str) -> None:
    seed = new_seed()
    with running(dialect, tmp_path / "data") as system, tenant_of(system.up) as tenant:
        asyncio.run(cut_all(tenant, "echo", seed))
        wait_until(lambda: all_ended(tenant), seconds=60, what="all runs have ended")
        system.up.settled()
        runs = runs_of(tenant)
        reported = sorted(int(run["usage"]["output_tokens"]) for run in runs)
        spoken = sorted(WORDS + number % 7 for number in range(STREAMS))
        expected = {meter: sum(run["usage"][meter] for run in runs) for meter in METERS[1:]} | {"runs": STREAMS}
        wait_until(lambda: metered(system.up, tenant.id) == expected, seconds=20, what=f"the meter has {expected}")
        assert {meter: tenant.balance()[meter] for meter in METERS} == expected
    difference = sum(reported) - sum(spoken)
    record(
        "Streams that are cut are billed correctly",
        COMMAND,
        f"{dialect}: {STREAMS:,} streams cut at random bytes: {sum(reported):,} tokens metered, {sum(spoken):,} spoken "
        f"by the model, difference {difference}",
        seed,
    )
    assert reported == spoken
