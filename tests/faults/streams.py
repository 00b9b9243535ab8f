"""Streams of the OpenAI-compatible routes that a client leaves after so many bytes."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import httpx2
import orjson

from tests.support.tenants import Tenant

AT_ONCE = 20
PATIENCE = 60.0  # seconds for a whole stream
ANSWERED = b"HTTP/1.1 200 OK\r\n"


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

    raised = [error for error in await asyncio.gather(*map(one, asks), return_exceptions=True) if error]
    assert not raised, f"{len(raised)} of {len(asks)} streams: {raised[0]}"


async def _ask(tenant: Tenant, ask: Ask) -> None:
    url = httpx2.URL(tenant.up.url)
    content = orjson.dumps(ask.body)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        f"POST {ask.path} HTTP/1.1\r\nHost: kgents\r\nContent-Type: application/json\r\nConnection: close\r\n".encode()
        + f"Authorization: Bearer {tenant.key}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    received = b""
    try:
        async with asyncio.timeout(PATIENCE):
            # Without a byte of the answer the run may not have been admitted; from the first one on it counts.
            while ask.after is None or len(received) < ask.after:
                part = await reader.read(2**16 if ask.after is None else ask.after - len(received))
                received += part
                if not part:
                    break
    except TimeoutError as error:
        raise AssertionError(f"no end of {ask} within {PATIENCE:g} s, after {received[-300:]!r}") from error
    finally:
        writer.transport.abort()
    assert received[: len(ANSWERED)] == ANSWERED[: len(received)], f"{ask} was answered {received[-500:]!r}"


def all_ended(tenant: Tenant) -> bool:
    """Whether no run of the tenant is under way."""
    return not any(
        tenant.http.get("/v1/runs", params={"status": status}).raise_for_status().json()["data"]
        for status in ("queued", "running")
    )
