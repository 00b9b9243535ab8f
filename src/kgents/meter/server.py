"""The embedded meter: OpenMeter's HTTP API (https://openmeter.io/docs) over one SQLite file, for one machine."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import socket
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import orjson
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kgents.clock import Clock, SystemClock
from kgents.errors import KgentsError, Unavailable
from kgents.meter.model import Invalid
from kgents.meter.routes import Api
from kgents.meter.storage import Storage
from kgents.telemetry.server import QuietServer

log = structlog.get_logger(__name__)

OPEN = ("/health", "/readyz")
GRACE = 3  # seconds for requests in flight when the server is stopped


def build_app(storage: Storage, token: str = "", clock: Clock | None = None) -> ASGIApp:
    """The meter as an ASGI application. With a `token`, everything but /health and /readyz asks for it."""
    app = Starlette(
        routes=Api(storage, clock or SystemClock()).routes(),
        exception_handlers={
            Invalid: _invalid,
            KgentsError: _refused,
            HTTPException: _not_routed,
            Exception: _failed,
        },
    )
    return _Token(app, token) if token else app


async def serve(
    host: str,
    port: int,
    path: Path,
    token: str = "",
    ready: Callable[[], None] | None = None,
    listener: socket.socket | None = None,
) -> None:
    """Serve the meter over the file until cancelled; then finish what was accepted, and close the file.

    `ready` is called once it answers. `listener` is a socket that listens already, instead of `host` and
    `port`. Raises Unavailable where the port or the file can't be used.
    """
    clock = SystemClock()
    with contextlib.closing(listener or _listen(host, port)) as listening:
        storage = Storage(path, now=clock.now())
        try:
            await _serve(build_app(storage, token, clock), listening, ready)
        finally:
            storage.close()


async def _serve(app: ASGIApp, listener: socket.socket, ready: Callable[[], None] | None) -> None:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        loop="none",
        ws="none",
        timeout_graceful_shutdown=GRACE,
    )
    server = QuietServer(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn tells by an attribute
            await asyncio.sleep(0.005)
        if ready is not None and server.started:
            ready()
        await asyncio.shield(task)
    finally:
        server.should_exit = True
        await asyncio.wait([task], timeout=GRACE + 2)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # asyncio sends answers without delay only on sockets that say that they are TCP's.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(2048)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise Unavailable(
            f"The meter can't listen on {host}:{port}: {error.strerror or error}. Choose another KGENTS_PORT.",
            code="meter-port",
        ) from error
    return listener


class _Token:
    """Lets requests pass that carry the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = b"bearer " + token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN:
            given = dict(scope["headers"]).get(b"authorization", b"")
            given = given[:7].lower() + given[7:]
            if not hmac.compare_digest(given, self._expected):
                response = problem(401, "Send the meter's token as 'Authorization: Bearer ...'.")
                response.headers["WWW-Authenticate"] = "Bearer"
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


def problem(status: int, detail: str) -> Response:
    """An RFC 9457 problem, with the members that OpenMeter's have."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": f"urn:request:{os.urandom(8).hex()}",
    }
    return Response(orjson.dumps(body), status_code=status, media_type="application/problem+json")


async def _invalid(_request: Request, error: Exception) -> Response:
    return problem(400, f"{error}.")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, KgentsError)
    if error.status >= 500:
        log.error("the meter can't do what it was asked for", path=request.url.path, reason=error.detail)
    return problem(error.status, error.detail)


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    details = {404: "There is no such route.", 405: f"This route does not take {request.method}."}
    response = problem(error.status_code, details.get(error.status_code, error.detail))
    response.headers.update(error.headers or {})
    return response


async def _failed(request: Request, error: Exception) -> Response:
    log.error("the meter failed", path=request.url.path, reason=type(error).__name__)
    return problem(500, "The meter failed at this. Its log says more.")
