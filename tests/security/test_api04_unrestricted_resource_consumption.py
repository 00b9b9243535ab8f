"""API4:2023. What one request, one connection or one tenant may cost is bounded before it is paid.

What a flood of good requests meets is in tests/faults/test_overload.py; quotas under a race in test_api06; how long a
body may take and an answer may lie unread in tests/unit/api.
"""

from __future__ import annotations

import gzip
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from kgents.api.transport import HEAD_SECONDS, MAX_HEADERS, SWEEP
from tests.isolation.catalog import PLATFORM_PATHS
from tests.support.raw_http import exchange
from tests.support.refusals import refused
from tests.support.tenants import Tenant
from tests.support.up import Up

MB = 1_000_000
JSON = {"Content-Type": "application/json"}
PATTERN = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a|a|aa)+$"}}, "required": ["a"]}


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


def memory(up: Up) -> int:
    """What the API's process holds, in bytes."""
    status = Path(f"/proc/{up.pid('api')}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024


def accepted(url: str, start: bytes, piece: bytes, most: int) -> int:
    """How many bytes of an endless request are taken until the connection is closed, up to `most`."""
    sent = 0
    with connect(url) as connection:
        try:
            connection.sendall(start)
            while sent < most:
                connection.sendall(piece)
                sent += len(piece)
        except ConnectionError:
            pass
    return sent


HEAD = b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        pytest.param(HEAD + b"X: ", b"a" * 65536, id="a header without end"),
        pytest.param(HEAD, b"X: a\r\n" * 10_000, id="headers without end"),
        pytest.param(HEAD + b"x", b"x" * 65536, id="a header's name without end"),
        pytest.param(b"GET /", b"a" * 65536, id="a path without end"),
        pytest.param(b"GET /?", b"a=b&" * 16384, id="a query without end"),
        pytest.param(HEAD + CHUNKED + b"{key}\r\n1;", b"a" * 65536, id="a chunk's extension without end"),
        pytest.param(HEAD + CHUNKED + b"{key}\r\n0\r\n", b"X: a\r\n" * 10_000, id="trailers without end"),
        pytest.param(HEAD + CHUNKED + b"{key}\r\n0\r\nX: ", b"a" * 65536, id="a trailer without end"),
        pytest.param(HEAD + CHUNKED + b"{key}\r\n", b"1\r\n \r\n" * 10_000, id="a body in chunks of a byte"),
    ],
)
def test_a_request_without_end_is_cut_off(up: Up, attacker: Tenant, start: bytes, piece: bytes) -> None:
    before = memory(up)
    start = start.replace(b"{key}", f"Authorization: Bearer {attacker.key}\r\n".encode())
    assert accepted(up.url, start, piece, 60 * MB) < 60 * MB
    assert memory(up) - before < 20 * MB


@pytest.mark.parametrize("name", ["metrics_url", "worker_metrics_url"])
def test_the_metrics_port_cuts_off_a_head_without_end(up: Up, name: str) -> None:
    start = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: "
    assert accepted(str(up.facts[name]), start, b"a" * 65536, 60 * MB) < 60 * MB


def test_too_many_headers_are_refused(up: Up) -> None:
    lines = b"X: a\r\n" * MAX_HEADERS
    answer = exchange(up.url, b"GET /health HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n")
    refused(answer, 431, "head-too-large")


def test_heads_that_drip_hold_no_connection(up: Up, anyone: httpx2.Client) -> None:
    """Slow-loris: each sends a byte now and then, so that it is never idle."""
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(up.url)) for _ in range(30)]
        for connection in slow:
            connection.sendall(HEAD + b"X: ")
        deadline = time.monotonic() + HEAD_SECONDS + 2 * SWEEP + 5
        answers: list[bytes] = []
        for connection in slow:
            connection.settimeout(0.1)
        while len(answers) < len(slow) and time.monotonic() < deadline:
            assert anyone.get("/health").status_code == 200
            answers = [*answers, *drip(slow[len(answers) :])]
    assert len(answers) == len(slow)
    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)


def drip(connections: list[socket.socket]) -> Iterator[bytes]:
    """One more byte to each, and what was answered to those that come first, up to one that was not."""
    for connection in connections:
        with suppress(ConnectionError):
            connection.send(b"a")
    for connection in connections:
        try:
            yield connection.recv(4096)
        except TimeoutError:
            return


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 9),
    "x-gzip": lambda data: gzip.compress(data, 9),
    "deflate": lambda data: zlib.compress(data, 9),
    "gzip, gzip": lambda data: gzip.compress(gzip.compress(data, 9), 9),
    "br": lambda data: b"\x8b\x02\x80{}\x03",
    "zstd": lambda data: b"(\xb5/\xfd\x04\x00\x11\x00\x00{}",
    "GZIP": lambda data: gzip.compress(data, 9),
    "identity, gzip": lambda data: gzip.compress(data, 9),
}


@pytest.mark.parametrize("coding", COMPRESSIONS)
def test_nothing_is_unpacked(up: Up, attacker: Tenant, coding: str) -> None:
    before = memory(up)
    bomb = COMPRESSIONS[coding](b" " * 100 * MB)
    for body in (bomb, COMPRESSIONS[coding](b'{"agent": "echo"}')):
        answer = attacker.http.post("/v1/sessions", content=body, headers=JSON | {"Content-Encoding": coding})
        refused(answer, 415, "content-coding")
        assert answer.headers["accept-encoding"] == "identity"
    assert memory(up) - before < 20 * MB


def test_a_body_that_is_said_to_be_as_it_is_is_taken(attacker: Tenant) -> None:
    answer = attacker.http.post("/v1/sessions", json={"agent": "echo"}, headers={"Content-Encoding": "identity"})
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"agent": ' + b"9" * 1_000_000 + b"}", id="a number of a million digits"),
        pytest.param(b'{"agent": 1e' + b"9" * 100_000 + b"}", id="an exponent of many digits"),
        pytest.param(b"{" + b",".join(b'"%d":0' % n for n in range(90_000)) + b"}", id="many fields"),
        pytest.param(b'{"agent": "' + b"\\u0041" * 150_000 + b'"}', id="many escapes"),
        pytest.param(b'{"metadata":' + b"[" * 63 + b"]" * 63 + b"}", id="deep"),
    ],
)
def test_a_body_that_is_dear_to_read_is_refused_at_once(attacker: Tenant, body: bytes) -> None:
    began = time.monotonic()
    answer = attacker.http.post("/v1/sessions", content=body, headers=JSON)
    assert answer.status_code in (400, 422)
    assert len(answer.content) < 10_000
    assert time.monotonic() - began < 3


def test_a_schema_whose_pattern_never_ends_stops_nobody(tenant: Tenant) -> None:
    hostile = '{"a": "' + "a" * 60 + '!"}'
    began = time.monotonic()
    made = tenant.http.post("/v1/agents", json={"name": "p", "model": "kgents:echo", "output_schema": PATTERN})
    if made.is_success:
        tenant.run(hostile, agent="p")
    assert tenant.http.get("/v1/agents").status_code == 200
    assert time.monotonic() - began < 10


def test_no_list_is_longer_than_a_page(attacker: Tenant, up: Up, document: dict[str, Any]) -> None:
    lists = [
        path
        for path, item in document["paths"].items()
        if any(each["name"] == "limit" for each in item.get("get", {}).get("parameters", ()))
    ]
    assert len(lists) >= 8
    with up.admin() as admin:
        for path in lists:
            for limit in ("101", "1000000", "-1"):
                client = admin if path.startswith(PLATFORM_PATHS) else attacker.http
                refused(client.get(path.replace("{agent}", "echo"), params={"limit": limit}), 422)


def test_a_tenant_does_not_ask_more_often_than_its_rate(new_tenant: Callable[..., Tenant]) -> None:
    slow = new_tenant(requests_per_minute=5)
    answers = [slow.http.get("/v1/agents") for _ in range(8)]
    limited = refused(answers[-1], 429, "rate-limited")
    assert "5 requests a minute" in limited
    assert int(answers[-1].headers["retry-after"]) >= 1


def test_what_would_cost_more_than_is_left_does_not_reach_a_model(new_tenant: Callable[..., Tenant]) -> None:
    poor = new_tenant(quotas={"output_tokens": 10})
    body = {"model": "echo", "messages": [{"role": "user", "content": "/words 1000"}]}
    refused(poor.http.post("/v1/chat/completions", json=body), 402)
    assert poor.balance()["output_tokens"] == 0
