"""What the API's refusals look like: RFC 9457 problems, and OpenAI's shape on the OpenAI-compatible routes."""

from __future__ import annotations

import httpx2

from kgents.api.problems import is_openai


def refused(answer: httpx2.Response, status: int, code: str = "") -> str:
    """The detail of an answer that must be one clear refusal with this status (and code)."""
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["x-request-id"]
    body = answer.json()
    if is_openai(answer.request.url.path):
        assert answer.headers["content-type"] == "application/json"
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
        detail, found = body["error"]["message"], body["error"]["code"].replace("_", "-")
    else:
        assert answer.headers["content-type"] == "application/problem+json"
        assert body["status"] == status
        assert body["instance"] == answer.headers["x-request-id"]
        detail, found = body["detail"], body["type"].removeprefix("urn:kgents:problem:")
    assert detail
    assert "Traceback" not in detail
    if code:
        assert found == code
    return str(detail)
