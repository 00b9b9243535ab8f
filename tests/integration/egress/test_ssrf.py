"""What tools may reach: many ways of writing an address inside, and a canary there that must not be touched."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import httpcore2
import pytest

from kgents.agents.tools import egress
from kgents.agents.tools.egress import EgressRefused, EgressRules, EgressTransport, egress_client, fetch
from kgents.agents.tools.toolbox import Toolbox
from kgents.clock import ManualClock
from kgents.config import Settings
from tests.support.canary import Canary, redirect, serve

NAMES = {
    "rebind.example": ["127.0.0.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "v6.example": ["::1"],
    "both.example": ["93.184.216.34", "127.0.0.1"],
    "last.example": ["93.184.216.34", "93.184.216.35", "10.0.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
    "zone.example": ["fe80::1%1"],
    "nothing.example": [],
    "rubbish.example": ["not an address"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "sixtofour.example": ["2002:7f00:1::"],
}


async def names(host: str, port: int) -> list[str]:
    """A resolver that knows NAMES, and for the rest what the system makes of a name without asking a server."""
    if host in NAMES:
        return NAMES[host]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [str(info[4][0]) for info in found]


# `{port}` is the canary's.
PAYLOADS = [
    # loopback, in every notation that a C library or a browser reads
    "http://127.0.0.1:{port}/",
    "http://127.0.0.2:{port}/",
    "http://127.255.255.254:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7F.0.0.1:{port}/",
    "http://0x7f.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://00000000177.0.0.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://localhost.localdomain:{port}/",
    "http://ip6-localhost:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[0000:0000:0000:0000:0000:0000:0000:0001]:{port}/",
    # IPv4 inside IPv6
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[::ffff:0:127.0.0.1]:{port}/",
    "http://[64:ff9b::127.0.0.1]:{port}/",
    "http://[64:ff9b:1::127.0.0.1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2001:0:7f00:1::]:{port}/",
    "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]:{port}/",
    "http://[2606:4700::5efe:127.0.0.1]:{port}/",
    "http://[fe80::1]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[fc00::1]:{port}/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[ff02::1]:{port}/",
    "http://[2001:db8::1]:{port}/",
    "http://[3fff::1]:{port}/",
    "http://[100::1]:{port}/",
    # private, shared, metadata, reserved
    "http://10.0.0.1/",
    "https://10.255.255.255/",
    "http://172.16.0.1/",
    "http://172.31.255.254/",
    "http://192.168.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "https://169.254.169.254/latest/meta-data/",
    "http://0xa9fea9fe/",
    "http://2852039166/",
    "http://0251.0376.0251.0376/",
    "http://169.254.170.2/v2/credentials",
    "http://100.64.0.1/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://192.0.2.1/",
    "http://198.18.0.1/",
    "http://198.51.100.7/",
    "http://203.0.113.9/",
    "http://192.88.99.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    # signs that become digits and dots
    "http://１２７.0.0.1:{port}/",  # noqa: RUF001
    "http://127。0。0。1:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/",
    "http://%31%32%37.0.0.1:{port}/",
    "http://127.0.0.1%2eexample.com:{port}/",
    # parsers led astray
    "http://example.com@127.0.0.1:{port}/",
    "http://example.com:80@127.0.0.1:{port}/",
    "http://user:pass@localhost:{port}/",
    "https://user@example.com/",
    "http://127.0.0.1:{port}@example.com/",
    "http://127.0.0.1:{port}\\@example.com/",
    "http://example.com\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@example.com/",
    "http://127.0.0.1:{port}?@example.com/",
    "http:127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "127.0.0.1:{port}",
    "http://127.0.0.1:80:{port}/",
    "http://127.0.0.1\t:{port}/",
    "http://127.0.0.1\r\nHost: example.com:{port}/",
    "http://127.\n0.0.1:{port}/",
    "http://127.0.0.1\x00.example.com:{port}/",
    "http://127.0.0.1 :{port}/",
    " http://127.0.0.1:{port}/",
    "http://[::1:{port}/",
    "http://[127.0.0.1]:{port}/",
    "http://-127.0.0.1:{port}/",
    "http://" + "a" * 5000 + ":{port}/",
    "http://" + "127.0.0.1." * 60 + ":{port}/",
    "http://:{port}/",
    "",
    # schemes
    "HTTP://127.0.0.1:{port}/",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/_GET%20/",
    "dict://127.0.0.1:{port}/",
    "ldap://127.0.0.1:{port}/",
    "ws://127.0.0.1:{port}/",
    "unix:///var/run/docker.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
    "data:text/plain,canary",
    "javascript:fetch('http://127.0.0.1:{port}/')",
    # names that lead inside
    *(f"http://{name}:{{port}}/" for name in NAMES),
    *(f"https://{name}/" for name in NAMES),
    # ports and plain http, outside
    "http://93.184.216.34/",
    "https://93.184.216.34:22/",
    "https://93.184.216.34:6379/",
]


@pytest.fixture
async def canary() -> AsyncIterator[Canary]:
    async with serve() as server:
        yield server


async def get(url: str, allow: tuple[str, ...] = (), resolver: egress.Resolver = names) -> bytes:
    async with egress_client(EgressTransport(EgressRules.parse(allow), resolver=resolver), timeout=2) as client:
        return (await fetch(client, url, max_bytes=1000)).body


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload[:60])
async def test_no_payload_reaches_inside(canary: Canary, payload: str) -> None:
    async with Toolbox.open(
        [{"type": "builtin", "name": "http_get"}], tenant_id="ten_1", settings=Settings(), clock=ManualClock()
    ) as box:
        answer = await box.call("http_get", {"url": payload.format(port=canary.port)})
    assert answer.startswith("Error: ")
    assert canary.connections == 0


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload[:60])
async def test_the_connections_check_holds_by_itself(
    canary: Canary, payload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the check of the URL, the check of the addresses at connecting still keeps every payload out."""
    monkeypatch.setattr(EgressRules, "check_url", lambda self, url: None)
    tried: list[str] = []

    async def no_connection(self: object, host: str, port: int, *args: object, **kwargs: object) -> None:
        tried.append(host)
        raise httpcore2.ConnectError

    monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", no_connection)
    with pytest.raises(Exception):  # noqa: B017, PT011  # whichever check comes first
        await get(payload.format(port=canary.port))
    assert set(tried) <= {"93.184.216.34"}


def switch_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EgressRules, "check_url", lambda self, url: None)
    monkeypatch.setattr(egress, "is_public", lambda address: True)


@pytest.mark.parametrize(
    "payload",
    [
        "http://127.0.0.1:{port}/",
        "http://127.1:{port}/",
        "http://2130706433:{port}/",
        "http://0x7f.0.0.1:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://127。0。0。1:{port}/",
        "http://example.com@127.0.0.1:{port}/",
        "http://rebind.example:{port}/",
        "http://mapped.example:{port}/",
    ],
)
async def test_without_the_checks_the_canary_is_hit(
    canary: Canary, payload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: these payloads do lead to the canary, so it is the checks that keep them out."""
    switch_off(monkeypatch)
    assert await get(payload.format(port=canary.port)) == b"canary"
    assert canary.connections == 1


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


@pytest.mark.parametrize("target", INSIDE)
@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"])
async def test_no_redirect_leads_inside(canary: Canary, target: str, status: str) -> None:
    location = target.format(port=canary.port)
    async with serve(lambda head: redirect(location, status), host="127.0.0.9") as outside:
        with pytest.raises(Exception) as raised:  # noqa: PT011
            await get(outside.url, allow=("127.0.0.9",))
    assert outside.connections == 1
    assert isinstance(raised.value, EgressRefused) or "UnsupportedProtocol" in type(raised.value).__name__
    assert canary.connections == 0


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
