"""Every error that a user can meet, as a tree. The API turns each into an RFC 9457 problem, the CLI into a line.

KgentsError
|- InvalidRequest        400  the request is malformed
|- Unauthenticated       401  no valid API key
|- QuotaExceeded         402  the month's quota of a meter is used up
|- Forbidden             403  the key lacks a scope
|- NotFound              404  no such object, or another tenant's
|- Conflict              409  the object's state forbids it
|- TooLarge              413  body over the limit
|- UnsupportedMediaType  415  the body is not said to be JSON
|- Unprocessable         422  well-formed, but a field's value can't be accepted
|- RateLimited           429  too many requests or tokens a minute
|- ModelFailed           502  the model provider failed
|- Unavailable           503  a dependency that serving safely needs is away
`- ModelTimeout          504  the model provider did not answer in time
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class KgentsError(Exception):
    """An error with a stable `code`, an HTTP status and a detail that says what failed and what to do next."""

    status: int = 500
    title: str = "Internal error"
    code: str = "internal"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        """`extra` becomes extension members of the problem document; it must be JSON and free of secrets."""
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code
        self.headers = dict(headers or {})
        self.extra = extra


class InvalidRequest(KgentsError):
    status = 400
    title = "The request is malformed"
    code = "invalid-request"


class Unauthenticated(KgentsError):
    status = 401
    title = "A valid API key is needed"
    code = "unauthenticated"


class QuotaExceeded(KgentsError):
    status = 402
    title = "The quota is used up"
    code = "quota-exceeded"


class Forbidden(KgentsError):
    status = 403
    title = "The API key lacks a scope"
    code = "forbidden"


class NotFound(KgentsError):
    status = 404
    title = "There is no such object"
    code = "not-found"


class Conflict(KgentsError):
    status = 409
    title = "The object's state forbids it"
    code = "conflict"


class TooLarge(KgentsError):
    status = 413
    title = "The request body is too large"
    code = "too-large"


class UnsupportedMediaType(KgentsError):
    status = 415
    title = "The body is of another media type"
    code = "unsupported-media-type"


class Unprocessable(KgentsError):
    status = 422
    title = "A field's value can't be accepted"
    code = "unprocessable"


class RateLimited(KgentsError):
    status = 429
    title = "Too many requests"
    code = "rate-limited"


class ModelFailed(KgentsError):
    status = 502
    title = "The model provider failed"
    code = "model-failed"


class Unavailable(KgentsError):
    status = 503
    title = "Temporarily unavailable"
    code = "unavailable"


class ModelTimeout(KgentsError):
    status = 504
    title = "The model provider did not answer in time"
    code = "model-timeout"
