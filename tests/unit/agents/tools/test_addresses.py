"""Which addresses are public."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgents.agents.tools.addresses import is_public


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "93.184.216.34", "172.15.255.255", "172.32.0.1", "100.63.0.1", "2606:4700::1111", "2a00::1"],
)
def test_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "168.63.129.16", "169.254.169.254", "172.16.0.1"),
        *("172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255"),
        *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::ffff:8.8.8.8", "::8.8.8.8", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "100::1", "2001::1"),
        *("2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:808:808::", "3fff::1", "5f00::1", "fc00::1"),
        *("fd12:3456::1", "fe80::1", "fe80::1%1", "fec0::1", "ff02::1", "2606:4700::5efe:8.8.8.8", "2606:4700::1%1"),
        *("2606:4700::200:5efe:8.8.8.8", "4000::1"),
    ],
)
def test_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@given(st.integers(0, 2**32 - 1))
def test_never_more_than_the_standard_library_says_of_ipv4(number: int) -> None:
    address = IPv4Address(number)
    assert not (is_public(address) and not address.is_global)


@given(st.integers(0, 2**128 - 1))
def test_never_more_than_the_standard_library_says_of_ipv6(number: int) -> None:
    address = IPv6Address(number)
    assert not (is_public(address) and not address.is_global)
