"""The client's address, told by a gateway that is trusted and by nobody else."""

from __future__ import annotations

import pytest

from kgents.api.source import Proxies
from kgents.errors import Unprocessable

GATEWAY = Proxies(["10.0.0.0/8", "fd00::/8"])


@pytest.mark.parametrize("forwarded", [None, b"", b"203.0.113.1"])
def test_who_is_no_trusted_proxy_is_the_client(forwarded: bytes | None) -> None:
    assert GATEWAY.client("192.0.2.1", forwarded) == "192.0.2.1"
    assert Proxies([]).client("10.0.0.1", forwarded) == "10.0.0.1"


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (b"203.0.113.1", "203.0.113.1"),
        (b" 203.0.113.1 ", "203.0.113.1"),
        (b"203.0.113.1:4711", "203.0.113.1"),
        (b"203.0.113.1, 10.0.0.7", "203.0.113.1"),
        (b"198.51.100.9, 203.0.113.1, 10.0.0.7", "203.0.113.1"),
        (b"2001:db8::1", "2001:db8::1"),
        (b"[2001:db8::1]:443", "2001:db8::1"),
        (b"::ffff:203.0.113.1", "203.0.113.1"),
        (b"10.0.0.8, 10.0.0.7", "10.0.0.8"),
        (b"unknown, 10.0.0.7", "10.0.0.7"),
        (b"10.0.0.8, unknown", ""),
        (b"203.0.113.1, \xff", ""),
        (b"203.0.113.1,", ""),
        (b"", ""),
        (None, ""),
    ],
)
def test_a_trusted_proxy_tells_whom_it_forwards(forwarded: bytes | None, client: str) -> None:
    for gateway in ("10.0.0.1", "fd00::1", "::ffff:10.0.0.1"):
        assert GATEWAY.client(gateway, forwarded) == client


@pytest.mark.parametrize("peer", ["", "unix:", "nonsense"])
def test_a_peer_without_an_address_is_named_as_it_is(peer: str) -> None:
    assert GATEWAY.client(peer, b"203.0.113.1") == peer


@pytest.mark.parametrize("network", ["", "gateway", "10.0.0.1/8", "10.0.0.0/99"])
def test_what_is_no_network_is_refused_with_the_setting_to_correct(network: str) -> None:
    with pytest.raises(Unprocessable, match="KGENTS_TRUSTED_PROXIES"):
        Proxies([network])
