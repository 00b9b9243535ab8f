"""Errors on the wire: RFC 9457 problem documents, and OpenAI's error shape on the OpenAI-compatible routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from kgents.errors import InvalidRequest, KgentsError, NotFound, TooLarge, Unprocessable

OPENAI_PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/models")

_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    402: "insufficient_quota",
    403: "invalid_request_error",
    404: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "requests",
}


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Stable: urn:kgents:problem:<code>.", examples=["urn:kgents:problem:not-found"])
    title: str
    status: int
    detail: str = Field(description="What failed, why, and what to do next.")
    instance: str | None = Field(default=None, description="The request id, to quote when asking for help.")


class OpenAIErrorBody(BaseModel):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """OpenAI's error shape."""

    error: OpenAIErrorBody


# What every native route may answer. The OpenAPI document gives these as application/problem+json.
PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "description": "The request was refused"},
    "5XX": {"model": Problem, "description": "The request could not be served"},
}
OPENAI_PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": OpenAIError, "description": "The request was refused"},
    "5XX": {"model": OpenAIError, "description": "The request could not be served"},
}


def is_openai(path: str) -> bool:
    """Whether a path answers in OpenAI's shapes."""
    return path.startswith(OPENAI_PATHS)


def render(error: KgentsError, path: str, request_id: str) -> tuple[bytes, str]:
    """The body of an error, and its media type."""
    if is_openai(path):
        body: dict[str, Any] = openai_error(error)
        return orjson.dumps(body), "application/json"
    body = {
        **error.extra,
        "type": f"urn:kgents:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": request_id,
    }
    return orjson.dumps(body), "application/problem+json"


def openai_error(error: KgentsError) -> dict[str, Any]:
    """An error in OpenAI's shape, as its SDKs read it."""
    kind = _OPENAI_TYPES.get(error.status, "server_error")
    code = {"quota-exceeded": "insufficient_quota", "unauthenticated": "invalid_api_key"}.get(
        error.code, error.code.replace("-", "_")
    )
    return {"error": {"message": error.detail, "type": kind, "param": error.extra.get("param"), "code": code}}


def respond(error: KgentsError, path: str, request_id: str) -> Response:
    """The response of an error."""
    body, media_type = render(error, path, request_id)
    return Response(body, status_code=error.status, headers=error.headers, media_type=media_type)


def of_validation(error: RequestValidationError) -> KgentsError:
    """The error of a request whose fields can't be accepted: each with where it is and what is wrong with it."""
    errors = [
        {"field": ".".join(str(part) for part in item["loc"]), "message": _message(item)}
        for item in error.errors()[:20]
    ]
    if any(item["type"] == "json_invalid" for item in error.errors()):
        return InvalidRequest(
            "The body is not valid JSON. Send UTF-8 JSON with Content-Type: application/json.", code="invalid-json"
        )
    first = errors[0]
    return Unprocessable(
        f"{first['field']}: {first['message']}" + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""),
        errors=errors,
        param=first["field"].removeprefix("body."),
    )


def _message(item: Mapping[str, Any]) -> str:
    if item["type"] == "extra_forbidden":
        return "is not a field of this request; remove it, or check its spelling against /docs"
    return str(item["msg"])


def of_http(error: HTTPException, path: str) -> KgentsError:
    """The error of what the framework refused: no such route, or not with this method, or a body it can't read."""
    if error.status_code == 404:
        return NotFound(f"There is no route {path[:200]!r}. All routes are listed at /docs.", code="no-such-route")
    if error.status_code == 413:
        return TooLarge("The request body is too large.")
    failure = InvalidRequest(str(error.detail), code=f"http-{error.status_code}", headers=error.headers)
    if error.status_code == 405:
        failure.detail = f"{path[:200]!r} does not take this method; the Allow header lists those that it takes."
        failure.code = "method-not-allowed"
    failure.status = error.status_code
    return failure
