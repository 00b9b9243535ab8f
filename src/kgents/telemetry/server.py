"""The metrics port that every process has: /metrics, liveness and readiness."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from kgents.telemetry.health import HealthBoard
from kgents.telemetry.metrics import CONTENT_TYPE, Metrics


def health_routes(board: HealthBoard) -> list[Route]:
    """`/health` and `/livez` say that the process lives; `/health/saas` and `/readyz` ask its dependencies."""

    async def live(request: Request) -> Response:
        if request.url.path == "/livez":
            return PlainTextResponse("[+]process ok\nlivez ok\n" if "verbose" in request.query_params else "ok")
        return _json({"status": "ok"}, 200)

    async def ready(request: Request) -> Response:
        report = await board.report()
        if request.url.path == "/readyz":
            short = "ok" if report.http_status == 200 else "unavailable"
            text = report.text() if "verbose" in request.query_params else short
            return PlainTextResponse(text, status_code=report.http_status)
        return _json(report.document(), report.http_status)

    return [Route("/health", live), Route("/livez", live), Route("/health/saas", ready), Route("/readyz", ready)]


def _json(document: object, status: int) -> Response:
    headers = {"cache-control": "no-store"}
    return Response(orjson.dumps(document), status_code=status, media_type="application/json", headers=headers)


def telemetry_app(metrics: Metrics, board: HealthBoard) -> Starlette:
    """What is served on the metrics port."""

    async def expose(_request: Request) -> Response:
        return Response(metrics.expose(), headers={"content-type": CONTENT_TYPE})

    return Starlette(routes=[Route("/metrics", expose), *health_routes(board)])


class QuietServer(uvicorn.Server):
    """uvicorn that leaves signals to whoever runs it: with its handler beside theirs each signal comes twice."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serve_telemetry(
    app: Starlette, host: str, port: int, listener: socket.socket | None = None
) -> AsyncIterator[None]:
    """Serve the metrics port, or what comes to a socket that listens already. Raises OSError when it is in use."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http="h11",  # which bounds the size of a head, as the faster one does not
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    server = QuietServer(config)
    task = asyncio.create_task(server.serve(sockets=[listener] if listener else None), name="metrics port")
    try:
        while not server.started:
            if task.done():
                task.result()
                raise OSError(f"the metrics port {port} can't be used")
            await asyncio.sleep(0.005)
        yield
    finally:
        server.should_exit = True
        await asyncio.wait([task], timeout=3)
        task.cancel()
