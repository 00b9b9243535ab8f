"""URLs of tools: refused, or https at a public address or a name, on an allowed port and without credentials."""

from __future__ import annotations

from ipaddress import ip_address

import httpx2

from kgents.agents.tools.egress import PORTS, EgressRefused, EgressRules, host_of

_RULES = EgressRules()

SEEDS = [
    b"https://example.com/path?x=1",
    b"https://127.0.0.1/",
    b"https://[::ffff:7f00:1]/",
    b"https://0x7f.1/",
    b"https://2130706433/",
    b"https://user:pass@example.com:8443/",
    b"https://example.com.:443/",
    b"https://\xe2\x93\x94xample.com/",
    b"https://[fe80::1%25eth0]/",
    b"http://8.8.8.8/",
    b"https://8.8.8.8:22/",
]


def check(data: bytes) -> None:
    """A URL, by an independent look at what is let through."""
    text = data.decode("utf-8", "replace")
    try:
        _RULES.check_url(text)
    except EgressRefused:
        return
    url = httpx2.URL(text)
    assert url.scheme == "https"
    assert not url.userinfo
    assert (url.port or 443) in PORTS
    host = host_of(url)
    assert host.isascii()
    try:
        address = ip_address(host)
    except ValueError:
        assert not host.rpartition(".")[2].isdigit()
        return
    assert address.is_global
    assert not address.is_multicast
