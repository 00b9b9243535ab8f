"""What tools may reach: many ways of writing an address inside, and a canary there that must not be touched."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from typing import Any

import httpcore2
import pytest

from kgents.agents.tools import egress
from kgents.agents.tools.egress import EgressRefused, EgressRules, EgressTransport, egress_client, fetch
from kgents.agents.tools.toolbox import Toolbox
from kgents.clock import ManualClock
from kgents.config import Settings
from tests.support.canary import Canary, redirect, serve
from tests.support.results import record
from tests.support.ssrf_payloads import NAMES, PAYLOADS

PROMISE = "No tool reaches inside"
COMMAND = "KGENTS_FULL=1 pytest tests/integration/egress/test_ssrf.py"


async def names(host: str, port: int) -> list[str]:
    """A resolver that knows NAMES, and for the rest what the system makes of a name without asking a server."""
    if host in NAMES:
        return NAMES[host]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [str(info[4][0]) for info in found]


@pytest.fixture
async def canary() -> AsyncIterator[Canary]:
    async with serve() as server:
        yield server


async def get(url: str, allow: tuple[str, ...] = (), resolver: egress.Resolver = names) -> bytes:
    async with egress_client(EgressTransport(EgressRules.parse(allow), resolver=resolver), timeout=2) as client:
        return (await fetch(client, url, max_bytes=1000)).body


def spy(monkeypatch: pytest.MonkeyPatch, *, connect: bool) -> list[str]:
    """The addresses that connections are tried to from now on; with `connect`, those to this machine are made."""
    tried: list[str] = []
    real = httpcore2.AnyIOBackend.connect_tcp

    async def connect_tcp(self: httpcore2.AnyIOBackend, host: str, *args: Any, **kwargs: Any) -> Any:
        tried.append(host)
        address = ip_address(host)
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        if connect and ((mapped or address).is_loopback or address.is_unspecified):
            return await real(self, host, *args, **kwargs)
        raise httpcore2.ConnectError

    monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", connect_tcp)
    return tried


def switch_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EgressRules, "check_url", lambda self, url: None)
    monkeypatch.setattr(egress, "is_public", lambda address: True)


def test_there_are_enough_payloads() -> None:
    assert len(set(PAYLOADS)) >= 300


async def test_no_payload_reaches_inside(canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = spy(monkeypatch, connect=True)
    reached = []
    async with Toolbox.open(
        [{"type": "builtin", "name": "http_get"}], tenant_id="ten_1", settings=Settings(), clock=ManualClock()
    ) as box:
        for payload in PAYLOADS:
            seen = len(tried), canary.connections
            answer = await box.call("http_get", {"url": payload.format(port=canary.port)})
            if not answer.startswith("Error: ") or (len(tried), canary.connections) != seen:
                reached.append((payload, answer))
    assert reached == []
    record(PROMISE, COMMAND, f"egress, both checks: {len(PAYLOADS):,} payloads: {len(reached)} reached the canary")


async def test_the_connections_check_holds_by_itself(canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check of the URL, the check of the addresses at connecting still keeps every payload out."""
    monkeypatch.setattr(EgressRules, "check_url", lambda self, url: None)
    tried = spy(monkeypatch, connect=False)
    reached = []
    for payload in PAYLOADS:
        tried.clear()
        try:
            answer = str(await get(payload.format(port=canary.port)))
        except Exception:  # whichever check comes first
            answer = ""
        if answer or not set(tried) <= {"93.184.216.34"}:
            reached.append((payload, answer, tried.copy()))
    assert reached == []
    record(
        PROMISE,
        COMMAND,
        f"egress, check at connecting alone: {len(PAYLOADS):,} payloads: {len(reached)} reached the canary",
    )


LEADING_THERE = {
    "http://127.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://127。0。0。1:{port}/",
    "http://example.com@127.0.0.1:{port}/",
    "http://rebind.example:{port}/",
    "http://mapped.example:{port}/",
    # of those that are made systematically
    "HTTP://127.0.0.1:{port}/",
    "http://0X7F000001:{port}/",
    "http://0000000017700000001:{port}/",
    "http://0x7f.0x1:{port}/",
    "http://0177.01:{port}/",
    "http://0177.00.01:{port}/",
    "http://0x0000007f.0.00.1:{port}/",
    "http://[::FFFF:7F00:1]:{port}/",
    "http://[0000:0000:0000:0000:0000:ffff:7f00:0001]:{port}/",
}


async def test_without_the_checks_the_canary_is_hit(canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: these payloads, and more, do lead to the canary, so it is the checks that keep them out."""
    switch_off(monkeypatch)
    spy(monkeypatch, connect=True)
    hit = set()
    for payload in PAYLOADS:
        seen = canary.connections
        with suppress(Exception):
            if await get(payload.format(port=canary.port)) == b"canary" and canary.connections > seen:
                hit.add(payload)
    assert LEADING_THERE - hit == set()
    record(
        f"{PROMISE}, control",
        COMMAND,
        f"egress, both checks off: {len(hit)} of {len(PAYLOADS):,} payloads reached the canary",
    )


class Rebinding:
    """A resolver whose first answer is public and whose later ones are loopback."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return ["93.184.216.34"] if self.asked == 1 else ["127.0.0.1"]


async def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    async def connect(self: object, host: str, port: int, *args: object, **kwargs: object) -> None:
        tried.append(host)
        raise httpcore2.ConnectError

    monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", connect)
    resolver = Rebinding()
    with pytest.raises(Exception):  # noqa: B017, PT011
        await get("https://turncoat.example/", resolver=resolver)
    assert tried == ["93.184.216.34"]
    assert resolver.asked == 1


async def test_a_name_that_turns_to_loopback_later_is_refused_then(
    canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EgressRules, "check_url", lambda self, url: None)
    resolver = Rebinding()
    await resolver("turncoat.example", 80)
    with pytest.raises(EgressRefused):
        await get(f"http://turncoat.example:{canary.port}/", resolver=resolver)
    assert canary.connections == 0


async def test_without_the_checks_rebinding_hits_the_canary(canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch)
    resolver = Rebinding()
    await resolver("turncoat.example", 80)
    assert await get(f"http://turncoat.example:{canary.port}/", resolver=resolver) == b"canary"


INSIDE = [
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://2130706433:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "//127.0.0.1:{port}/",
    "http://user@127.0.0.1:{port}/",
    "http://rebind.example:{port}/",
    "https://rebind.example/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/",
]


STATUSES = ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"]


async def test_no_redirect_leads_inside(canary: Canary) -> None:
    redirects = [(target.format(port=canary.port), status) for target in INSIDE for status in STATUSES]
    for location, status in redirects:
        async with serve(lambda head, to=location, code=status: redirect(to, code), host="127.0.0.9") as outside:
            with pytest.raises(Exception) as raised:  # noqa: PT011
                await get(outside.url, allow=("127.0.0.9",))
        assert outside.connections == 1, (location, status)
        assert isinstance(raised.value, EgressRefused) or "UnsupportedProtocol" in type(raised.value).__name__
        assert canary.connections == 0, (location, status)
    record(PROMISE, COMMAND, f"egress, redirects: {len(redirects)} redirects: 0 reached the canary")


async def test_without_the_checks_a_redirect_hits_the_canary(canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch)
    async with serve(lambda head: redirect(canary.url), host="127.0.0.9") as outside:
        assert await get(outside.url) == b"canary"


async def test_the_environments_proxy_is_not_used(canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, canary.url)
    async with serve(host="127.0.0.9") as outside:
        assert await get(outside.url, allow=("127.0.0.9",)) == b"canary"
    assert canary.connections == 0


async def test_which_names_exist_inside_is_not_told() -> None:
    told = []
    for name in ("rebind.example", "nothing.example", "unknown.example"):
        with pytest.raises(EgressRefused) as raised:
            await get(f"https://{name}/")
        told.append(raised.value.detail.replace(name, "NAME"))
    assert len(set(told)) == 1
