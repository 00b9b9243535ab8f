"""Streams of the OpenAI-compatible routes that a client leaves after so many bytes."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import httpx2
import orjson

from tests.support.tenants import Tenant

AT_ONCE = 20


class Ask(NamedTuple):
    """A stream to ask for. Its client goes away after so many bytes; None: it stays to the end."""

    path: str
    body: dict[str, Any]
    after: int | None = None


def chat(agent: str, text: str, after: int | None = None) -> Ask:
    """A stream of POST /v1/chat/completions."""
    messages = [{"role": "user", "content": text}]
    return Ask("/v1/chat/completions", {"model": agent, "stream": True, "messages": messages}, after)


def response(agent: str, text: str, after: int | None = None) -> Ask:
    """A stream of POST /v1/responses."""
    return Ask("/v1/responses", {"model": agent, "stream": True, "input": text}, after)


async def ask_all(tenant: Tenant, asks: list[Ask]) -> None:
    """Ask for the streams, a few at once."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(ask: Ask) -> None:
        async with turns:
            await _ask(tenant, ask)

    await asyncio.gather(*(one(ask) for ask in asks))


async def _ask(tenant: Tenant, ask: Ask) -> None:
    url = httpx2.URL(tenant.up.url)
    content = orjson.dumps(ask.body)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        f"POST {ask.path} HTTP/1.1\r\nHost: kgents\r\nContent-Type: application/json\r\n".encode()
        + f"Authorization: Bearer {tenant.key}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    left = ask.after if ask.after is not None else 2**31
    async with asyncio.timeout(30):
        # Without a byte of the answer the run may not have been admitted; from the first one on it counts.
        while left > 0 and (part := await reader.read(min(left, 2**16))):
            left -= len(part)
            if part.endswith(b"0\r\n\r\n"):
                break
    writer.transport.abort()


def all_ended(tenant: Tenant) -> bool:
    """Whether no run of the tenant is under way."""
    return not any(
        tenant.http.get("/v1/runs", params={"status": status}).raise_for_status().json()["data"]
        for status in ("queued", "running")
    )
