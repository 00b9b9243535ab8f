"""The API of one process without its sockets: the composition root's own parts over a real database, called as ASGI.

So requests go through authentication, scoping, limits and services as they do behind a socket, hundreds a second. There
is no bus: what waits in the outbox stays there.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from kgents import app
from kgents.api.app import build_api
from kgents.cli.one_machine import _first_keys
from kgents.config import Settings
from kgents.store.changes import ChangeFeed
from kgents.store.migrate import migrate
from kgents.telemetry import logs


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered; `body` is decoded."""

    status: int
    headers: dict[str, str]
    body: Any


class InProcess:
    """The running API. `admin_key` is a platform administrator's."""

    def __init__(self, runner: asyncio.Runner, api: Any, feed: ChangeFeed, admin_key: str) -> None:
        self._runner = runner
        self._api = api
        self._feed = feed
        self.admin_key = admin_key
        self.requests = 0

    def ask(self, method: str, path: str, body: Any = None, *, key: str, query: str = "", **headers: str) -> Answer:
        """Send a request. What it changed has been heard of by every cache when this returns."""
        self.requests += 1
        return self._runner.run(self._ask(method, path, body, {**headers, "Authorization": f"Bearer {key}"}, query))

    async def _ask(self, method: str, path: str, body: Any, headers: dict[str, str], query: str) -> Answer:
        content = b"" if body is None else json.dumps(body).encode()
        given = {"Host": "here", **headers, "Content-Type": "application/json", "Content-Length": str(len(content))}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self._api(scope, receive, send)
        if method != "GET":
            await self._feed.poll()
        answer = b"".join(message.get("body", b"") for message in sent[1:])
        told = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], told, json.loads(answer) if answer else None)


@contextmanager
def in_process(database_url: str, owner_url: str = "") -> Iterator[InProcess]:
    """An API over an empty database, which is migrated unless there is another role for that."""
    logs.configure("error", "test", stream=io.StringIO())
    settings = Settings(database_url=database_url, pepper=SecretStr("0f" * 32), nats_url="nats://127.0.0.1:9")
    migrate(owner_url or database_url)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def start() -> InProcess:
            keys = await _first_keys(settings)
            parts = await stack.enter_async_context(app._parts(settings, "api"))
            services = app._services(parts)
            parts.feed.subscribe(services.authenticator.apply, services.authenticator.clear)
            parts.feed.subscribe(services.catalog.apply, services.catalog.clear)
            return InProcess(runner, build_api(services), parts.feed, keys["admin_key"])

        try:
            yield runner.run(start())
        finally:
            runner.run(stack.aclose())
