"""The console: one page that works over the public API with the user's own key; and the API reference.

The key stays in the browser's tab; the server keeps no session, so there is nothing to forge or to steal here.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
ASSETS = ("console.css", "console.js", "api.js", "view.js", "tenant.js", "owner.js")


def _static(name: str) -> Response:
    body = (files("kgents.console") / "static" / name).read_bytes()
    return _page(body, _TYPES[name.rpartition(".")[2]])


def _page(body: bytes | str, media_type: str) -> Response:
    headers = {"content-security-policy": _CSP, "cache-control": "no-cache"}
    return Response(body, media_type=media_type, headers=headers)


async def index(_request: Request) -> Response:
    """The console."""
    return _static("index.html")


async def asset(request: Request) -> Response:
    """The console's scripts and style."""
    return _static(request.url.path.rpartition("/")[2])


async def reference(request: Request) -> Response:
    """The API reference, from the OpenAPI document."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("kgents.console", "static"), autoescape=True)
    template = environment.get_template("reference.html")
    document = request.app.openapi()
    return _page(template.render(document=document, groups=_groups(document)), "text/html")


def _groups(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            groups.setdefault(operation.get("tags", ["Other"])[0], []).append(
                {
                    "path": path,
                    "method": method.upper(),
                    **operation,
                    "fields": _fields(document, body),
                    "answers": {status: answer["description"] for status, answer in operation["responses"].items()},
                }
            )
    return groups


def _fields(document: dict[str, Any], schema: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The fields of a request body, one line each."""
    if schema is None:
        return []
    resolved = _resolve(document, schema)
    required = set(resolved.get("required", ()))
    return [
        {"name": name, "type": _type(field), "required": name in required, "description": field.get("description", "")}
        for name, field in resolved.get("properties", {}).items()
    ]


def _resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    return document["components"]["schemas"][reference.rpartition("/")[2]] if reference else schema


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(option) for option in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", schema.get("const", "any")))


ROUTES = [
    Route("/console", index),
    *(Route(f"/console/{name}", asset) for name in ASSETS),
    Route("/docs", reference),
]
