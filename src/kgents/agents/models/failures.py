"""The one place where a provider's failures become kgents' errors.

What a provider sends back may quote the conversation or a key, so a detail never holds any of it: only what failed,
the HTTP status, and what to do next.
"""

from __future__ import annotations

import math
from typing import Any

import httpx2
from pydantic_ai.exceptions import (
    ContentFilterError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    ModelRequestTimeout,
    ModelTimeoutError,
    UserError,
)
from pydantic_ai.usage import RequestUsage

from kgents.errors import KgentsError, ModelFailed, ModelTimeout, Unprocessable

MAX_RETRY_AFTER = 3600


class UnreadableAnswer(Exception):
    """A provider answered, and charges for it, with what can't be read; its `__cause__` says why. `usage` is what it
    reported of the call, `in_full` where it reported both counts, and `text` as much of the answer as there is.
    """

    def __init__(self, usage: RequestUsage, *, in_full: bool, text: str) -> None:
        super().__init__("the answer can't be read")
        self.usage = usage
        self.in_full = in_full
        self.text = text


def translate(error: BaseException) -> KgentsError:
    """The error to show for what a call of a model raised. KgentsErrors stay as they are.

    Codes: `model-timeout` (504); `model-rate-limited` (with Retry-After when the provider says when), `model-quota`,
    `model-credentials`, `model-not-found`, `model-context-exceeded`, `model-rejected`, `model-unreachable`,
    `model-filtered` and `model-failed` (502); `model-unsupported` (422). `upstream_status` is the provider's HTTP
    status, where there was one.
    """
    if isinstance(error, KgentsError):
        return error
    if isinstance(error, UnreadableAnswer) and error.__cause__:
        return translate(error.__cause__)
    if isinstance(error, ModelTimeoutError | ModelRequestTimeout | httpx2.TimeoutException | TimeoutError):
        return ModelTimeout("The model provider did not answer in time. Try again, or ask for a shorter answer.")
    if isinstance(error, ModelHTTPError) and error.status_code in (408, 504):
        return ModelTimeout(
            f"The model provider answered HTTP {error.status_code}: it did not finish in time. Try again.",
            upstream_status=error.status_code,
        )
    if isinstance(error, ModelAPIError):
        return _refused(error)
    if isinstance(error, httpx2.TransportError | httpx2.StreamError | ConnectionError):
        return _unreachable({})
    if isinstance(error, ContentFilterError):
        return ModelFailed("The model provider's content filter stopped the answer.", code="model-filtered")
    if isinstance(error, UserError | NotImplementedError):
        return Unprocessable(
            "The model can't do what this request asks of it (such as structured output, a tool choice or an image). "
            "Leave that out, or choose another model.",
            code="model-unsupported",
        )
    return ModelFailed(
        f"The model provider's answer could not be understood ({type(error).__name__}). Try again; if it goes on, "
        "check that the provider's base URL leads to the API that its kind says."
    )


def _refused(error: ModelAPIError) -> ModelFailed:
    status = error.status_code if isinstance(error, ModelHTTPError) else None
    extra: dict[str, Any] = {"upstream_status": status} if status else {}
    answered = f"The model provider answered HTTP {status}" if status else "The model provider failed"
    match error:
        case ModelQuotaExceededError():
            return ModelFailed(
                f"{answered}: the provider account's quota is used up. The operator has to raise it with the provider.",
                code="model-quota",
                **extra,
            )
        case ModelRateLimitError():
            return _rate_limited(error.retry_after, extra)
        case ModelAuthenticationError():
            return ModelFailed(
                f"{answered}: it does not accept the configured credentials. The operator has to check the provider's "
                "API key.",
                code="model-credentials",
                **extra,
            )
        case ModelNotFoundError():
            return ModelFailed(
                f"{answered}: it has no model of that name. Check the agent's model and the provider's base URL.",
                code="model-not-found",
                **extra,
            )
        case ModelContextWindowExceededError():
            return ModelFailed(
                f"{answered}: the conversation is longer than the model can read. Start a new session, or send less.",
                code="model-context-exceeded",
                **extra,
            )
        case ModelRequestRejectedError():
            return ModelFailed(
                f"{answered}: it does not accept the request. Check the agent's settings, tools and output schema.",
                code="model-rejected",
                **extra,
            )
        case ModelConnectionError():
            return _unreachable(extra)
    if status in (401, 403):
        return _refused(ModelAuthenticationError(error.model_name, ""))
    if status == 429:
        return _rate_limited(error.retry_after, extra)
    return ModelFailed(f"{answered}. Try again in a moment.", **extra)


def _rate_limited(retry_after: float | None, extra: dict[str, Any]) -> ModelFailed:
    headers: dict[str, str] = {}
    if retry_after is not None and 0 <= retry_after <= MAX_RETRY_AFTER:
        headers["Retry-After"] = str(math.ceil(retry_after))
    return ModelFailed(
        "The model provider limits the rate of requests or tokens. Try again later, or have the operator raise the "
        "limit with the provider.",
        code="model-rate-limited",
        headers=headers,
        **extra,
    )


def _unreachable(extra: dict[str, Any]) -> ModelFailed:
    return ModelFailed(
        "The connection to the model provider failed or broke off. Try again; if it goes on, check the provider's "
        "base URL and that this network reaches it.",
        code="model-unreachable",
        **extra,
    )
