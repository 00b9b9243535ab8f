"""What a request meets that there is no room for, and what never counts as load."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.faults.load import Connection
from tests.support.raw_http import exchange
from tests.support.tenants import tenant_of
from tests.support.up import Up
from tests.support.waiting import wait_until

ASKING = 200


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A kgents that works on one request at a time, lets one wait, and serves few connections."""
    settings = {"KGENTS_MAX_AT_WORK": "1", "KGENTS_MAX_WAITING": "1", "KGENTS_MAX_CONNECTIONS": "300"}
    up = Up(tmp_path_factory.mktemp("narrow") / "data", environment=settings).start()
    yield up
    up.stop()


def refusals(up: Up, method: str, path: str, **options: Any) -> list[httpx2.Response]:
    """The answers of those who were refused when many ask at once; there are some, and some were not."""

    async def ask() -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=ASKING)
        headers = {"Authorization": f"Bearer {up.key}"}
        async with httpx2.AsyncClient(
            base_url=up.url, headers=headers, limits=limits, timeout=60, trust_env=False
        ) as client:
            return list(await asyncio.gather(*(client.request(method, path, **options) for _ in range(ASKING))))

    answers = asyncio.run(ask())
    assert {answer.status_code for answer in answers} == {200, 503}
    return [answer for answer in answers if answer.status_code == 503]


CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}


def test_a_refusal_of_a_native_route_is_a_problem(narrow: Up) -> None:
    for answer in refusals(narrow, "GET", "/v1/agents", headers={"X-Request-Id": "mine"}):
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["x-request-id"] == "mine"
        assert answer.headers["x-content-type-options"] == "nosniff"
        problem = answer.json()
        assert problem.pop("detail")
        assert problem == {
            "type": "urn:kgents:problem:overloaded",
            "title": "Temporarily unavailable",
            "status": 503,
            "instance": "mine",
        }


def test_a_refusal_of_an_openai_route_has_openais_shape(narrow: Up) -> None:
    for answer in refusals(narrow, "POST", "/v1/chat/completions", json=CHAT):
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["x-request-id"].startswith("req_")
        error = answer.json()["error"]
        assert error.pop("message")
        assert error == {"type": "server_error", "param": None, "code": "overloaded"}


def test_refusals_are_counted_by_reason(narrow: Up) -> None:
    before = counted(narrow)
    refused = len(refusals(narrow, "GET", "/v1/agents"))
    assert counted(narrow) - before == refused


def counted(up: Up) -> float:
    text = httpx2.get(str(up.facts["metrics_url"]), trust_env=False).text
    values = [
        line.rpartition(" ")[2] for line in text.splitlines() if line.startswith("kgents_requests_refused_total{")
    ]
    return sum(map(float, values))


def test_health_and_metrics_answer_while_requests_are_refused(narrow: Up) -> None:
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(refusals, narrow, "POST", "/v1/chat/completions", json=CHAT)
        while not asking.done():
            assert httpx2.get(f"{narrow.url}/health", trust_env=False).status_code == 200
            assert httpx2.get(str(narrow.facts["metrics_url"]), trust_env=False).status_code == 200
        assert asking.result()


@contextmanager
def connections(up: Up, count: int) -> Iterator[None]:
    """Connections on which nothing is asked."""
    address = urlsplit(up.url)
    opened = [socket.create_connection((address.hostname, address.port)) for _ in range(count)]
    try:
        yield
    finally:
        for connection in opened:
            connection.close()


def request(up: Up, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: kgents\r\nAuthorization: Bearer {up.key}\r\n\r\n".encode()


def test_a_request_on_one_connection_too_many_is_refused_and_the_connection_closed(narrow: Up) -> None:
    with connections(narrow, 300):
        answer = exchange(narrow.url, request(narrow, "/v1/agents"))
    assert (answer.status_code, answer.headers["connection"]) == (503, "close")


def test_health_answers_on_one_connection_too_many(narrow: Up) -> None:
    with connections(narrow, 300):
        assert exchange(narrow.url, request(narrow, "/health")).status_code == 200


def test_connections_too_many_that_ask_nothing_are_closed(narrow: Up) -> None:
    address = urlsplit(narrow.url)
    with connections(narrow, 300), socket.create_connection((address.hostname, address.port), timeout=30) as surplus:
        assert surplus.recv(1) == b""


@pytest.fixture(scope="module")
def frugal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A kgents that has two requests of a tenant under way."""
    up = Up(tmp_path_factory.mktemp("frugal") / "data", environment={"KGENTS_MAX_TENANT_REQUESTS": "2"}).start()
    yield up
    up.stop()


@contextmanager
def streams(up: Up, key: str, count: int) -> Iterator[None]:
    """Streams that have begun and take long, cut at the end."""
    body = {"model": "echo", "messages": [{"role": "user", "content": "/sleep 5 one two"}], "stream": True}
    headers = {"Authorization": f"Bearer {key}"}
    begun = []  # an iteration that nobody holds any more closes its connection
    with ExitStack() as opened:
        client = opened.enter_context(httpx2.Client(base_url=up.url, headers=headers, timeout=60, trust_env=False))
        for _ in range(count):
            answer = opened.enter_context(client.stream("POST", "/v1/chat/completions", json=body))
            begun.append(answer.iter_lines())
            assert next(begun[-1]).startswith("data:")
        yield


def test_a_tenant_has_so_many_requests_under_way_and_no_more(frugal: Up) -> None:
    with tenant_of(frugal) as tenant, tenant_of(frugal) as another, streams(frugal, tenant.key, 2):
        answer = tenant.http.get("/v1/agents")
        problem = answer.json()
        assert (answer.status_code, problem["limit"]) == (429, 2)
        assert problem["type"] == "urn:kgents:problem:too-many-requests-under-way"
        assert answer.headers["retry-after"] == "1"
        assert another.http.get("/v1/agents").status_code == 200


def test_a_stream_that_is_cut_is_not_under_way(frugal: Up) -> None:
    with tenant_of(frugal) as tenant:
        with streams(frugal, tenant.key, 2):
            pass
        wait_until(lambda: tenant.http.get("/v1/agents").status_code == 200, what="the cut streams have ended")


def test_requests_that_wait_for_a_model_are_no_load(tmp_path: Path) -> None:
    up = Up(tmp_path / "data", environment={"KGENTS_MAX_AT_WORK": "2", "KGENTS_MAX_WAITING": "400"}).start()
    try:
        with tenant_of(up) as slow, tenant_of(up) as quick:
            statuses, took = asyncio.run(beside_slow_ones(up, slow.key, quick.key))
    finally:
        up.stop()
    assert statuses == [200] * 300
    assert max(took) < 3


async def beside_slow_ones(up: Up, slow: str, quick: str) -> tuple[list[int], list[float]]:
    """300 runs whose model takes 5 s, at once; and how long others took meanwhile."""
    loop = asyncio.get_running_loop()

    async def ask(key: str, text: str) -> int:
        connection = Connection(up.url, key, patience=60)
        try:
            body = {"model": "echo", "messages": [{"role": "user", "content": text}]}
            return (await connection.post("/v1/chat/completions", body))[0]
        finally:
            connection.close()

    waiting = [asyncio.create_task(ask(slow, "/sleep 5 word")) for _ in range(300)]
    took = []
    while not any(task.done() for task in waiting):
        began = loop.time()
        assert await ask(quick, "hi") == 200
        took.append(loop.time() - began)
    return list(await asyncio.gather(*waiting)), took
