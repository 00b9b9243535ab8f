"""API8:2023. Security headers on every answer, no ambiguity of HTTP, nothing switched on that is not needed.

The same tricks through a gateway are in test_gateway.py.
"""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.isolation.catalog import BODIES
from tests.security.operations import operations_of
from tests.support.raw_http import exchange
from tests.support.tenants import Tenant
from tests.support.up import Up

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
PAGES = ("/console", "/console/console.js", "/console/console.css", "/docs", "/openapi.json", "/health", "/nothing")


def missing(answer: httpx2.Response) -> list[str]:
    """What an answer lacks, or tells too much of."""
    found = [name for name, value in HEADERS.items() if answer.headers.get(name) != value]
    policy = answer.headers.get("content-security-policy", "")
    if "default-src 'none'" not in policy or "frame-ancestors 'none'" not in policy or "unsafe" in policy:
        found.append("content-security-policy")
    if "no-store" not in answer.headers.get("cache-control", "") and not answer.request.url.path.startswith("/console"):
        found.append("cache-control")
    told = [name for name in ("server", "x-powered-by", "via", "x-aspnet-version") if name in answer.headers]
    return found + told + [name for name in answer.headers if name.startswith("access-control-")]


def test_every_operations_answers_have_the_security_headers(
    attacker: Tenant, anyone: httpx2.Client, document: dict[str, Any]
) -> None:
    for operation in operations_of(document):
        body = BODIES[operation.schema][0] if operation.schema else None
        for client in (anyone, attacker.http):
            answer = client.request(
                operation.method, operation.some_path, json=body, headers={"Origin": "https://evil.example"}
            )
            assert missing(answer) == [], (operation.id, answer.status_code)


def test_good_answers_have_the_security_headers(attacker: Tenant, anyone: httpx2.Client) -> None:
    chat = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}
    answers = [
        *(anyone.get(path) for path in PAGES if path not in ("/console", "/docs")),
        *(attacker.http.get(path) for path in ("/v1/agents", "/v1/models", "/v1/usage")),
        *(attacker.http.post("/v1/chat/completions", json={**chat, "stream": stream}) for stream in (False, True)),
        *(attacker.http.request(method, "/v1/agents") for method in ("OPTIONS", "TRACE", "HEAD", "PUT")),
    ]
    assert [(answer.request.url.path, lacks) for answer in answers if (lacks := missing(answer))] == []


@pytest.mark.parametrize("path", ["/console", "/docs"])
def test_pages_run_their_own_scripts_only(anyone: httpx2.Client, path: str) -> None:
    answer = anyone.get(path)
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert [lack for lack in missing(answer) if lack != "cache-control"] == []
    assert "<script>" not in answer.text


KEY = "Authorization: Bearer {key}\r\n"
TYPE = "Content-Type: application/json\r\n"
BODY = '{"agent": "echo"}'
CHUNK = f"11\r\n{BODY}\r\n0\r\n\r\n"
POST = "POST /v1/sessions HTTP/1.1\r\nHost: x\r\n" + KEY + TYPE
GET = "GET /v1/agents HTTP/1.1\r\n"
AMBIGUOUS = {
    "two lengths": POST + f"Content-Length: 17\r\nContent-Length: 5\r\n\r\n{BODY}",
    "the same length twice": POST + f"Content-Length: 17\r\nContent-Length: 17\r\n\r\n{BODY}",
    "a list of lengths": POST + f"Content-Length: 17, 17\r\n\r\n{BODY}",
    "a length with a sign": POST + f"Content-Length: +17\r\n\r\n{BODY}",
    "a hexadecimal length": POST + f"Content-Length: 0x11\r\n\r\n{BODY}",
    "a length and chunks": POST + f"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNK}",
    "chunks and a length": POST + f"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{CHUNK}",
    "an unknown coding": POST + f"Transfer-Encoding: xchunked\r\n\r\n{CHUNK}",
    "a coding before chunks": POST + f"Transfer-Encoding: gzip, chunked\r\n\r\n{CHUNK}",
    "a coding in a line before": POST + f"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNK}",
    "a coding in a line after": POST + f"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n{CHUNK}",
    "chunks not last": POST + f"Transfer-Encoding: chunked, identity\r\n\r\n{CHUNK}",
    "a space before the colon": POST + f"Transfer-Encoding : chunked\r\n\r\n{CHUNK}",
    "a control before the value": POST + f"Transfer-Encoding: \x0bchunked\r\n\r\n{CHUNK}",
    "a folded line": POST + f"Transfer-Encoding:\r\n chunked\r\n\r\n{CHUNK}",
    "chunks in HTTP/1.0": POST.replace("1.1", "1.0") + f"Transfer-Encoding: chunked\r\n\r\n{CHUNK}",
    "a chunk's size in C": POST + f"Transfer-Encoding: chunked\r\n\r\n0x11\r\n{BODY}\r\n0\r\n\r\n",
    "a chunk's size with a sign": POST + f"Transfer-Encoding: chunked\r\n\r\n+11\r\n{BODY}\r\n0\r\n\r\n",
    "a chunk too large to count": POST + f"Transfer-Encoding: chunked\r\n\r\n{'f' * 17}\r\n{BODY}\r\n0\r\n\r\n",
    "chunks without returns": POST + f"Transfer-Encoding: chunked\r\n\r\n11\n{BODY}\n0\n\n",
    "a length after the body": POST
    + f"Transfer-Encoding: chunked\r\n\r\n11\r\n{BODY}\r\n0\r\nContent-Length: 4\r\n\r\n",
    "lines without returns": f"{GET}Host: x\r\n{KEY}\r\n".replace("\r\n", "\n"),
    "a return inside a line": f"{GET}Host: x\r\nX: a\rHost: y\r\n{KEY}\r\n",
    "a NUL in a header": f"{GET}Host: x\r\nX: a\0b\r\n{KEY}\r\n",
    "a header without a name": f"{GET}Host: x\r\n: a\r\n{KEY}\r\n",
    "a header without a colon": f"{GET}Host: x\r\nX\r\n{KEY}\r\n",
    "a space in a header's name": f"{GET}Host: x\r\nX Y: a\r\n{KEY}\r\n",
    "no host": f"{GET}{KEY}\r\n",
    "two hosts": f"{GET}Host: x\r\nHost: y\r\n{KEY}\r\n",
    "two keys, the good one last": f"{GET}Host: x\r\nAuthorization: Bearer kg_x\r\n{KEY}\r\n",
    "two keys, the good one first": f"{GET}Host: x\r\n{KEY}Authorization: Bearer kg_x\r\n\r\n",
    "two media types": POST.replace(TYPE, f"{TYPE}Content-Type: text/plain\r\n") + f"Content-Length: 17\r\n\r\n{BODY}",
    "two idempotency keys": POST + f"Idempotency-Key: a\r\nIdempotency-Key: b\r\nContent-Length: 17\r\n\r\n{BODY}",
    "no version": "GET /v1/agents \r\n\r\n",
    "another version": f"GET /v1/agents HTTP/1.2\r\nHost: x\r\n{KEY}\r\n",
    "HTTP/2 without asking": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a tunnel": f"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n{KEY}\r\n",
    "a method in lower case": f"get /v1/agents HTTP/1.1\r\nHost: x\r\n{KEY}\r\n",
    "a path without a slash": f"GET v1/agents HTTP/1.1\r\nHost: x\r\n{KEY}\r\n",
    "TLS": "\x16\x03\x01 / \x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_a_request_that_can_be_read_in_two_ways_is_refused(attacker: Tenant, what: str) -> None:
    """And the connection ends with it, so that nothing behind it is taken for another request."""
    request = AMBIGUOUS[what].replace("{key}", attacker.key).encode("latin-1")
    answer = exchange(attacker.up.url, request)
    assert answer.status_code == 400, answer.text
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/problem+json"
    assert missing(answer) == []


def test_a_key_behind_the_body_is_none(attacker: Tenant) -> None:
    head = POST.replace(KEY, "") + "Transfer-Encoding: chunked\r\n\r\n"
    request = f"{head}11\r\n{BODY}\r\n0\r\n{KEY}\r\n".replace("{key}", attacker.key)
    assert exchange(attacker.up.url, request.encode()).status_code == 401


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "TLS/1.0"])
def test_no_other_protocol_is_spoken(up: Up, protocol: str) -> None:
    head = f"{GET}Host: x\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nSec-WebSocket-Version: 13\r\n"
    answer = exchange(up.url, f"{head}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
    assert answer.status_code == 401
    assert missing(answer) == []


@pytest.mark.parametrize("path", ["/v1/agents/", "/console/", "/docs/", "/health/", "//evil.example/", "/v1//agents"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:80@x", "127.0.0.1:22", ""])
def test_nobody_is_sent_where_the_host_header_says(attacker: Tenant, path: str, host: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Host: evil.example\r\n"
    answer = exchange(attacker.up.url, f"{head}Authorization: Bearer {attacker.key}\r\n\r\n".encode())
    assert answer.status_code == 404
    assert "location" not in answer.headers
    assert missing(answer) == []


def test_no_other_origin_is_let_in(anyone: httpx2.Client) -> None:
    headers = {
        "Origin": "https://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    for path in ("/v1/agents", "/v1/chat/completions", "/health", "/console"):
        answer = anyone.options(path, headers=headers)
        assert answer.status_code in (401, 405)
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_what_went_wrong_here_is_not_shown(attacker: Tenant) -> None:
    """Of each error the code and a sentence; nothing of the program."""
    answers = [
        attacker.http.get("/v1/agents/%ff"),
        attacker.http.post("/v1/sessions", content=b"{", headers={"Content-Type": "application/json"}),
        attacker.http.post("/v1/responses", json={"model": "echo", "input": "/fail"}),
        attacker.http.get("/v1/runs", params={"after": "'"}),
    ]
    words = ("Traceback", "File ", ".py", "sqlite", "postgres", "asyncpg", "uvicorn", "fastapi", "pydantic")
    assert [word for word in words for answer in answers if word in answer.text] == []
