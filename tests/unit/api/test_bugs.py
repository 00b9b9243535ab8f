"""What a client sees when a route of ours breaks."""

from __future__ import annotations

from types import SimpleNamespace

import httpx2
import pytest
from starlette.responses import StreamingResponse
from starlette.routing import Route

from kgents.api.app import build_api
from kgents.telemetry.metrics import Metrics


async def broken(_request):
    raise RuntimeError("the secret sauce")


@pytest.mark.parametrize("header", [{}, {"X-Request-Id": "mine"}])
async def test_an_unexpected_error_is_a_problem_without_its_text(header):
    app = build_api(SimpleNamespace(metrics=Metrics("api")), [Route("/broken", broken)])

    # The transport raises what leaves the application: nothing does, so the server has no reason to cut the connection.
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://api") as client:
        answer = await client.get("/broken", headers=header)

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:kgents:problem:internal"
    assert answer.json()["instance"] == answer.headers["x-request-id"]
    assert "sauce" not in answer.text


async def test_a_response_that_breaks_off_is_cut():
    async def half():
        yield b"half"
        raise RuntimeError("the rest is missing")

    async def begun(_request):
        return StreamingResponse(half())

    app = build_api(SimpleNamespace(metrics=Metrics("api")), [Route("/begun", begun)])

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://api") as client:
        with pytest.raises(RuntimeError, match="missing"):
            await client.get("/begun")
