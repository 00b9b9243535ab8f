"""How long a client may take to send a body."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from kgents.api import edge
from kgents.api.admission import Admission
from kgents.api.edge import Edge
from kgents.api.limits import RateLimits
from kgents.clock import SystemClock
from kgents.config import Settings
from kgents.telemetry.metrics import Metrics
from kgents.tenants.model import OWNER, Principal
from kgents.tenants.ratelimit import MemoryLimiter

PRINCIPAL = Principal("ten_1", "key", OWNER, "active", None, None)


@pytest.fixture
def subject() -> Edge:
    """The edge before an application that must not be reached, with a key that is known."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("a request was let in")

    settings, clock, metrics = Settings(), SystemClock(), Metrics("api")
    services = SimpleNamespace(
        settings=settings,
        clock=clock,
        metrics=metrics,
        authenticator=SimpleNamespace(cached=lambda token: PRINCIPAL),
        limits=RateLimits(MemoryLimiter(clock), settings),
        admission=Admission(settings, metrics),
    )
    return Edge(app, services)  # type: ignore[arg-type]


async def test_a_body_that_drips_is_refused_however_steadily(subject: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "BODY_TIMEOUT", 0.05)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(0.001)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"x"), (b"authorization", b"Bearer kg_x"), (b"transfer-encoding", b"chunked")]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/sessions",
        "raw_path": b"/v1/sessions",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
    }
    await subject(scope, receive, send)
    start, body = sent
    assert start["status"] == 400
    assert (b"connection", b"close") in [(name.lower(), value) for name, value in start["headers"]]
    assert json.loads(body["body"])["type"] == "urn:kgents:problem:body-timeout"
