"""Refusals by the head alone: to whom, in what form, and again for the very same head."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kgents.api import gate as gates
from kgents.api.admission import Admission, Place
from kgents.api.gate import Gate, Head
from kgents.config import Settings
from kgents.telemetry.metrics import Metrics
from kgents.tenants.authenticator import Authenticator
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

PATH = b"/v1/chat/completions"
BODY = b'{"a":1}'
HEADERS = [(b"authorization", b"Bearer noisy"), (b"content-length", b"7")]
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer noisy\r\ncontent-length: 7\r\n\r\n"
WHOLE = HEAD + BODY


class KnownKeys:
    """Knows the keys of tenants, each of which is its tenant's name."""

    def cached(self, token: str) -> Any:
        return SimpleNamespace(tenant_id=token) if token in ("noisy", "quiet") else None


@pytest.fixture
async def crowded() -> AsyncIterator[tuple[Gate, Place]]:
    """A gate before an API whose one place is taken and whose queue is full, and the place; both by `noisy`."""
    admission = Admission(Settings.model_validate({"max_at_work": 1, "max_waiting": 1}), Metrics("api"))
    place = admission.enter("noisy")
    assert place is not None
    waiting = asyncio.create_task(admission.wait("noisy"))
    await eventually(lambda: admission.crowded)
    yield Gate(admission, cast("Authenticator", KnownKeys()), 100, 1_048_576), place
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


def refused(gate: Gate, *more: tuple[bytes, bytes]) -> gates.Refusal:
    found = gate.refusal(PATH, [*HEADERS, *more], surplus=False, close=False)
    assert found is not None
    return found


def remembered(gate: Gate, data: bytes = WHOLE) -> Head:
    head = refused(gate).head
    assert head is not None
    gate.remember(data, head)
    return head


async def test_what_is_no_route_of_the_api_is_let_in(crowded: tuple[Gate, Place]) -> None:
    gate, _ = crowded
    assert gate.refusal(b"/health", HEADERS, surplus=False, close=False) is None


async def test_a_tenant_with_nothing_under_way_is_let_in(crowded: tuple[Gate, Place]) -> None:
    gate, _ = crowded
    assert gate.refusal(PATH, [(b"authorization", b"Bearer quiet")], surplus=False, close=False) is None


async def test_on_a_connection_too_many_everybody_is_refused(crowded: tuple[Gate, Place]) -> None:
    gate, _ = crowded
    assert gate.refusal(PATH, [(b"authorization", b"Bearer quiet")], surplus=True, close=True) is not None


@pytest.mark.parametrize("header", [(b"content-length", b"65537"), (b"transfer-encoding", b"chunked")])
async def test_a_connection_with_much_to_come_is_closed(
    crowded: tuple[Gate, Place], header: tuple[bytes, bytes]
) -> None:
    found = refused(crowded[0], header)
    assert found.close
    assert b"\r\nconnection: close\r\n" in found.answer


async def test_a_head_that_was_refused_is_refused_again_with_another_request_id(
    crowded: tuple[Gate, Place],
) -> None:
    gate, _ = crowded
    remembered(gate)
    answers = [gate.refuse_again(WHOLE) for _ in range(2)]
    assert all(answer is not None and answer.startswith(b"HTTP/1.1 503 ") for answer in answers)
    assert answers[0] != answers[1]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(HEAD + BODY[:3], id="its body is not whole"),
        pytest.param(WHOLE + HEAD, id="another request follows"),
        pytest.param(WHOLE.replace(b"noisy", b"other"), id="of another key"),
        pytest.param(WHOLE.replace(b"POST", b"PUT"), id="of another method"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_what_is_not_the_same_is_parsed(crowded: tuple[Gate, Place], data: bytes) -> None:
    gate, _ = crowded
    remembered(gate)
    assert gate.refuse_again(data) is None


async def test_it_is_parsed_once_there_is_room(crowded: tuple[Gate, Place]) -> None:
    gate, place = crowded
    remembered(gate)
    place.leave()
    assert gate.refuse_again(WHOLE) is None


async def test_it_is_parsed_after_a_second(crowded: tuple[Gate, Place], monkeypatch: pytest.MonkeyPatch) -> None:
    gate, _ = crowded
    now = 1000.0
    monkeypatch.setattr(gates, "monotonic", lambda: now)
    remembered(gate)
    now += 1.1
    gate.remember(b"GET /v1/models HTTP/1.1\r\n\r\n", Head("noisy", 0, (b"", b"")))
    assert gate.refuse_again(WHOLE) is None


async def test_a_head_whose_body_did_not_come_with_it_is_not_kept(crowded: tuple[Gate, Place]) -> None:
    gate, _ = crowded
    remembered(gate, HEAD)
    assert gate.refuse_again(WHOLE) is None


async def test_a_request_that_names_itself_is_not_kept(crowded: tuple[Gate, Place]) -> None:
    found = refused(crowded[0], (b"x-request-id", b"mine"))
    assert b"\r\nx-request-id: mine\r\n" in found.answer
    assert found.head is None
