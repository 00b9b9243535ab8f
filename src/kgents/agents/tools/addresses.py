"""Which addresses on the internet a tool may reach: public unicast only, in their own notation.

The lists follow IANA's special-purpose address registries (RFC 6890 and its updates). An IPv6 address that carries an
IPv4 address (mapped, 6to4, Teredo, NAT64, ISATAP) is refused whatever it carries: it is a second way of writing an
address, and where a gateway turns it into the first one it would lead around every check of that one.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NOT_PUBLIC: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers (RFC 6598), and some clouds' metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's host agent, public in form only
        "169.254.0.0/16",  # link-local, and most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocols
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/23",  # IETF protocols: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
_UNICAST6 = IPv6Network("2000::/3")  # all that IANA has given out; mapped, NAT64, local and multicast lie outside
_ISATAP = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")


def is_public(address: Address) -> bool:
    """Whether `address` is an ordinary public one."""
    if isinstance(address, IPv6Address) and (
        address not in _UNICAST6 or address.scope_id is not None or address.packed[8:12] in _ISATAP
    ):
        return False
    return not any(address in network for network in _NOT_PUBLIC if network.version == address.version)
