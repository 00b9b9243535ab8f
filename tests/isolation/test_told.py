"""What the prover compares of two answers: a page that begins elsewhere is told, the time of day is not."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.isolation.prover import _told

REF = "run_01M8GAJ0MBYV2M3JHMX6TFE53Z"


def told(status: int, body: Any, *, method: str = "GET", ref: str = REF) -> tuple[int, Any]:
    answer = httpx2.Response(status, json=body, request=httpx2.Request(method, "http://here/v1/runs"))
    return _told(answer, ref)


@pytest.mark.parametrize(
    "other", [{"data": [{"id": "b"}]}, {"data": []}, {"data": [{"id": "a"}], "has_more": True}, [], "a"]
)
def test_what_is_read_is_compared(other: Any) -> None:
    assert told(200, {"data": [{"id": "a"}]}) != told(200, other)


def test_the_time_of_day_is_not_compared() -> None:
    assert told(200, {"data": [{"id": "a", "last_used_at": 1}], "to": 1}) == told(200, {"data": [{"id": "a"}], "to": 2})


def test_what_was_asked_for_is_not_compared() -> None:
    other = "run_01M8GAJ0MBYV2M3JHMX6zzzzzz"
    assert told(404, {"detail": f"no {REF}", "instance": 1}) == told(404, {"detail": f"no {other}"}, ref=other)


def test_what_was_made_is_not_compared() -> None:
    assert told(201, {"id": "a"}, method="POST") == told(201, {"id": "b"}, method="POST")
