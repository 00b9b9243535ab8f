"""The HTTP API as one ASGI application."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp

from kgents import __version__
from kgents.agents.ledger_ops import MAX_KEY_LENGTH
from kgents.api import problems
from kgents.api.call import KEY_PATTERN
from kgents.api.direct import DirectRoute
from kgents.api.edge import REQUEST_ID, Edge, internal
from kgents.api.links import add_links
from kgents.api.routes import (
    agents,
    api_keys,
    audit,
    billing,
    chat,
    health,
    models,
    plans,
    responses,
    runs,
    sessions,
    tenants,
    usage,
    webhooks,
)
from kgents.api.services import Services
from kgents.errors import KgentsError

DESCRIPTION = """
Serve AI agents to many tenants, with every token and run metered.

Authenticate with `Authorization: Bearer kg_...`. Errors are RFC 9457 problem documents with a stable `type`; the
OpenAI-compatible routes answer in OpenAI's own error shape. 429 is the tenant's own rate limit; 503 `overloaded` says
that more requests come than can be served; both say in `Retry-After` when to try again. Every POST takes an
`Idempotency-Key`. Lists are paged with `limit` and `after`.
"""

DIRECT = (chat.create_chat_completion, responses.create_response)  # the endpoints that carry the load
ROUTERS = (
    chat,
    responses,
    runs,
    models,
    agents,
    sessions,
    usage,
    api_keys,
    tenants,
    plans,
    billing,
    audit,
    webhooks,
    health,
)


def build_api(services: Services, pages: Sequence[BaseRoute] = ()) -> ASGIApp:
    """The application: routes, error shapes, and the edge around them; with the console's pages."""
    app = FastAPI(
        title="kgents",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # it would send a client to whatever Host the request names
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.services = services
    # The routes themselves, not their routers: an included router is asked about every request, route by route.
    for module in ROUTERS:
        app.router.routes.extend(module.router.routes)
    app.router.routes.extend(pages)
    app.add_exception_handler(KgentsError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
    direct = [route for route in app.routes if isinstance(route, APIRoute) and route.endpoint in DIRECT]
    return Edge(app, services, [DirectRoute(route) for route in direct])


def _respond(request: Request, error: KgentsError) -> Response:
    return problems.respond(error, request.url.path, request.scope.get(REQUEST_ID, ""))


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, KgentsError)
    return _respond(request, error)


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _respond(request, problems.of_validation(error))


async def _on_bug(request: Request, _error: Exception) -> Response:
    return _respond(request, internal())  # the framework raises the error again, for the edge to log it


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    failure = problems.of_http(error, request.url.path)
    if failure.status == 405:
        failure.headers["Allow"] = ", ".join(_methods(request))
    return _respond(request, failure)


def _methods(request: Request) -> list[str]:
    """Every method that some route takes at the request's path; the framework tells only the first route's."""
    methods: set[str] = set()
    for route in request.app.router.routes:
        if isinstance(route, Route | APIRoute) and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return sorted(methods)


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document, with what FastAPI can't know: the key, problems' media type, common headers, links."""
    if app.openapi_schema:
        return app.openapi_schema
    app.openapi_schema = None
    document = FastAPI.openapi(app)
    document["components"].setdefault("securitySchemes", {})["apiKey"] = {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, kg_<id>_<secret>.",
    }
    document["components"]["schemas"]["StripeEvent"] = webhooks.EVENT
    document["components"]["schemas"].pop("HTTPValidationError", None)
    document["components"]["schemas"].pop("ValidationError", None)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path.startswith("/v1/"):
                operation["security"] = [{"apiKey": []}]
            if method == "post" and path.startswith("/v1/"):
                operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
            _describe_problems(path, operation["responses"])
            _describe_streams(operation["responses"])
    add_links(document)
    return document


_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Makes a retry safe: the same key and request is done once, and answered the same for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH, "pattern": KEY_PATTERN},
}


def _describe_problems(path: str, responses: dict[str, Any]) -> None:
    responses.pop("422", None)
    if problems.is_openai(path):
        return
    for status in ("4XX", "5XX"):
        content = responses.get(status, {}).get("content", {})
        for media_type in ("application/json", "text/event-stream"):
            if media_type in content:
                content["application/problem+json"] = content.pop(media_type)


def _describe_streams(responses: dict[str, Any]) -> None:
    """Leave open what an event is: FastAPI writes that a stream is a string, which readers take for each event of it,
    and OpenAPI before 3.2 has no word for events.
    """
    for response in responses.values():
        response.get("content", {}).get("text/event-stream", {}).pop("schema", None)
