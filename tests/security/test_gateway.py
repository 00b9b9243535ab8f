"""Header and path tricks through a gateway: a real nginx, with the settings that the manifests give Kong.

What a gateway lets through, and kgents then reads in another way, would be a request that nobody checked.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import pytest

from tests.security.test_api08_security_misconfiguration import AMBIGUOUS
from tests.support import nginx
from tests.support.nginx import Nginx
from tests.support.tenants import Tenant
from tests.support.tools import left_out
from tests.support.up import Up

CLIENT = "127.0.0.5"  # where the attacker comes from
SILENCE = 0.3  # seconds after an answer in which another one would come


@pytest.fixture(scope="module")
def gateway(up: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a gateway before kgents."""
    binary = nginx.find_binary()
    if binary is None:
        left_out("there is no nginx; `apt-get install nginx` does it")
    proxy = Nginx(binary, tmp_path_factory.mktemp("gateway"), [up.url.removeprefix("http://")])
    yield proxy.url
    proxy.stop()


@pytest.fixture
def client(gateway: str, tenant: Tenant) -> Iterator[httpx2.Client]:
    """The tenant's client, through the gateway, from an address of its own."""
    headers = {"Authorization": f"Bearer {tenant.key}"}
    transport = httpx2.HTTPTransport(local_address=CLIENT)
    with httpx2.Client(base_url=gateway, headers=headers, transport=transport, timeout=30) as made:
        yield made


def said(url: str, request: bytes) -> bytes:
    """All that is answered on a connection until it is closed, or has been silent for a moment."""
    address = urlsplit(url)
    received = b""
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(request)
        try:
            while part := connection.recv(65536):
                received += part
                connection.settimeout(SILENCE)
        except (TimeoutError, ConnectionError):
            pass
    return received


def smuggled(marker: str) -> str:
    """A request that is hidden behind another one's body."""
    return f"GET /v1/smuggled HTTP/1.1\r\nHost: x\r\nX-Request-Id: {marker}\r\n\r\n"


def hidden_in_chunks(length: int, coding: str, marker: str, key: str) -> bytes:
    hidden = smuggled(marker)
    head = f"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {length}\r\n{coding}\r\n\r\n0\r\n\r\n{hidden}".encode("latin-1")


CODINGS = (
    "Transfer-Encoding: chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: \x0bchunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    "X: a\rTransfer-Encoding: chunked",
    "X: a\nTransfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding: CHUNKED",
    "\x00Transfer-Encoding: chunked",
    "Content-Length: 5",
)


@pytest.mark.parametrize("coding", CODINGS, ids=repr)
def test_no_request_is_smuggled_past_the_gateway(up: Up, attacker: Tenant, gateway: str, coding: str) -> None:
    """The hidden one may be refused, or answered in its turn as one of its own, which the gateway then has seen; what
    must not be is that kgents saw it and the gateway did not.
    """
    for length in (5, 5 + len(smuggled(f"smuggled-{uuid4().hex}"))):
        marker = f"smuggled-{uuid4().hex}"
        answered = said(gateway, hidden_in_chunks(length, coding, marker, attacker.key)).count(b"HTTP/1.1 ")
        seen = up.logs_until_now().count(marker)
        assert seen == 0 or answered == 2, f"kgents saw {seen}, the gateway gave {answered} answers"


def test_the_marker_of_a_request_that_is_seen_is_in_the_log(up: Up, client: httpx2.Client) -> None:
    """The control of the test above."""
    marker = f"smuggled-{uuid4().hex}"
    client.get("/v1/smuggled", headers={"X-Request-Id": marker})
    assert marker in up.logs_until_now()


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_what_is_ambiguous_gives_one_answer_at_most(attacker: Tenant, gateway: str, what: str) -> None:
    request = AMBIGUOUS[what].replace("{key}", attacker.key).encode("latin-1")
    assert said(gateway, request).count(b"HTTP/1.1 ") <= 1


PATHS = (
    "/v1%2fagents",
    "/v1%2Fagents",
    "/%76%31/agents",
    "/v1/%61gents",
    "/health/../v1/agents",
    "/health/%2e%2e/v1/agents",
    "/health/..%2fv1/agents",
    "/health/%2e%2e%2fv1%2fagents",
    "/console/..;/v1/agents",
    "/console/..\\v1\\agents",
    "//v1/agents",
    "/./v1/agents",
    "/v1/./agents",
    "/v1//agents",
    "/v1/agents;x=y",
    "/v1/agents%00.css",
    "/v1/agents%23",
    "/v1/agents%3f",
    "/health?/v1/agents",
    "/health/v1/agents",
    "/V1/agents",
    "/v1/agents/..%252f",
    "http://localhost/v1/agents",
)


@pytest.mark.parametrize("path", PATHS)
def test_no_way_of_writing_a_path_does_without_a_key(up: Up, attacker: Tenant, gateway: str, path: str) -> None:
    """Nothing of a tenant's, with the gateway or without."""
    for url in (gateway, up.url):
        answer = said(url, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 ")
        assert b"agt_" not in answer
        assert answer[9:12] in (b"400", b"401", b"404") or path.startswith("/health?")


def written(client: httpx2.Client, tenant: Tenant, **headers: str) -> str:
    """The source that the audit log names for a change that is made through the gateway."""
    body = {"name": uuid4().hex, "model": "kgents:echo"}
    made = client.post("/v1/agents", json=body, headers=headers).raise_for_status().json()["id"]
    log = tenant.http.get("/v1/audit-log", params={"limit": "100"}).json()["data"]
    return str(next(entry["source_ip"] for entry in log if entry["object_id"] == made))


@pytest.mark.parametrize("forged", ["203.0.113.9", "127.0.0.1", "203.0.113.9, 127.0.0.1", "x", "", "10.0.0.1,,"])
def test_the_audit_log_names_the_client_and_not_what_it_says_of_itself(
    client: httpx2.Client, tenant: Tenant, forged: str
) -> None:
    headers = dict.fromkeys(("X-Forwarded-For", "X-Real-IP", "True-Client-IP", "Forwarded", "Client-IP"), forged)
    assert written(client, tenant, **headers) == CLIENT


def test_the_gateways_word_is_not_struck_out_by_the_client(client: httpx2.Client, tenant: Tenant) -> None:
    """Headers that Connection names are between two neighbours: a gateway removes them."""
    assert written(client, tenant, Connection="close, X-Forwarded-For, X-Request-Id") == CLIENT


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"X-Forwarded-Host": "evil.example"},
        {"X-Forwarded-Proto": "gopher"},
        {"X-Forwarded-Prefix": "/evil"},
        {"X-Original-URL": "/v1/tenants"},
        {"X-Rewrite-URL": "/v1/tenants"},
        {"X-Forwarded-Port": "22"},
        {"X-HTTP-Method-Override": "DELETE"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_no_header_leads_elsewhere(client: httpx2.Client, headers: dict[str, str]) -> None:
    plain, tricked = client.get("/v1/agents"), client.get("/v1/agents", headers=headers)
    assert (tricked.status_code, tricked.json()) == (plain.status_code, plain.json())
    assert "evil" not in str(tricked.headers)


def test_two_keys_are_not_one_for_the_gateway_and_another_for_kgents(attacker: Tenant, gateway: str) -> None:
    for pair in ((attacker.key, "kg_x"), ("kg_x", attacker.key)):
        keys = "".join(f"Authorization: Bearer {key}\r\n" for key in pair)
        answer = said(gateway, f"GET /v1/agents HTTP/1.1\r\nHost: x\r\n{keys}\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 400 ")
