"""kgents behind a gateway: streams come as they are made, headers stay, and the edge refuses what is too much."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from kgents.api.sse import PING_SECONDS
from tests.support import nginx
from tests.support.nginx import Nginx
from tests.support.up import Up

MIB = 1024 * 1024
WORDS = "one two three four five six"
SLOWLY = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": f"/sleep 0.3 {WORDS}"}]}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("gateway")).start()
    yield running
    running.stop()


@contextmanager
def gateway(up: Up, folder: Path, **options: Any) -> Iterator[httpx2.Client]:
    binary = nginx.find_binary()
    if binary is None:
        pytest.skip("there is no nginx")
    proxy = Nginx(binary, folder, [up.url.removeprefix("http://")], **options)
    try:
        headers = {"Authorization": f"Bearer {up.key}"}
        with httpx2.Client(base_url=proxy.url, headers=headers, trust_env=False, timeout=30) as client:
            yield client
    finally:
        proxy.stop()


@pytest.fixture
def client(up: Up, tmp_path: Path) -> Iterator[httpx2.Client]:
    with gateway(up, tmp_path) as client:
        yield client


def spread(client: httpx2.Client) -> float:
    """Seconds between the first and the last word of a slow stream."""
    with client.stream("POST", "/v1/chat/completions", json=SLOWLY) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        times = [time.monotonic() for line in answer.iter_lines() if '"content"' in line]
    assert len(times) >= len(WORDS.split())
    return times[-1] - times[0]


def test_a_stream_comes_as_it_is_made(client: httpx2.Client) -> None:
    assert spread(client) > 0.9


def test_a_gateway_that_buffers_by_default_does_not_buffer_streams(up: Up, tmp_path: Path) -> None:
    with gateway(up, tmp_path, buffering=True) as client:
        assert spread(client) > 0.9


def test_a_gateway_that_buffers_streams_is_noticed(up: Up, tmp_path: Path) -> None:
    """The control of the two tests above."""
    with gateway(up, tmp_path, buffering=True, deaf=True) as client:
        assert spread(client) < 0.9


def test_the_silence_of_a_stream_is_shorter_than_the_gateways_patience() -> None:
    read_timeout = int(nginx.service_annotations()["konghq.com/read-timeout"]) / 1000
    assert read_timeout > PING_SECONDS * 3


def test_a_stream_is_taken_up_where_it_broke_off(client: httpx2.Client) -> None:
    session = client.post("/v1/sessions", json={"agent": "echo"}).json()["id"]
    body = {"input": WORDS, "mode": "stream"}
    with client.stream("POST", f"/v1/sessions/{session}/runs", json=body) as answer:
        whole = ids(answer)
    (run,) = (each["id"] for each in client.get("/v1/runs", params={"session_id": session}).json()["data"])
    with client.stream("GET", f"/v1/runs/{run}/events", headers={"Last-Event-ID": whole[1]}) as answer:
        assert ids(answer) == whole[2:]


def ids(answer: httpx2.Response) -> list[str]:
    """The ids of a stream's events."""
    return [line.removeprefix("id:").strip() for line in answer.iter_lines() if line.startswith("id:")]


def test_what_is_too_large_is_refused_at_the_edge(client: httpx2.Client) -> None:
    answer = client.post("/v1/chat/completions", content=b" " * (MIB + 1))
    assert answer.status_code == 413
    assert answer.headers["server"].startswith("nginx")


def test_the_request_id_is_the_callers_or_else_the_gateways(client: httpx2.Client) -> None:
    assert client.get("/v1/models", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    made = client.get("/v1/models").headers["x-request-id"]
    assert UUID(made).hex == made  # nginx's form


def test_a_flood_from_one_address_is_refused_at_the_edge(client: httpx2.Client) -> None:
    answers = flood(client.base_url, 10, 100)
    assert {status for status, _ in answers} == {b"200", b"429"}
    assert all(b"\nserver: nginx" in head.lower() for status, head in answers if status == b"429")


def flood(url: httpx2.URL, connections: int, count: int) -> list[tuple[bytes, bytes]]:
    """The statuses and heads that are answered to as many requests over each connection, all sent at once."""
    request = b"GET /health HTTP/1.1\r\nHost: edge\r\n"
    with ExitStack() as stack:
        address = (url.host, url.port or 80)
        opened = [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(connections)]
        for each in opened:
            each.sendall((request + b"\r\n") * (count - 1) + request + b"Connection: close\r\n\r\n")
        said = b"".join(b"".join(iter(partial(each.recv, 65536), b"")) for each in opened)
    found = re.findall(rb"HTTP/1\.1 (\d+)(.*?\r\n)\r\n", said, re.DOTALL)
    assert len(found) == connections * count
    return found
