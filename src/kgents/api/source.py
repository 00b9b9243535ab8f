"""Who is at the other end: the client's address, also where a gateway stands between."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from kgents.errors import Unprocessable


class Proxies:
    """The proxies whose word is taken for whom they forward (`KGENTS_TRUSTED_PROXIES`)."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Networks in CIDR notation, or addresses. Raises Unprocessable (`setting`) for what is neither."""
        self._networks: list[IPv4Network | IPv6Network] = []
        for text in networks:
            try:
                self._networks.append(ip_network(text))
            except ValueError as error:
                raise Unprocessable(
                    f"The setting KGENTS_TRUSTED_PROXIES can't be used: {text!r} is no address or network ({error}). "
                    'Give a JSON list, such as ["10.0.0.0/8"].',
                    code="setting",
                ) from None

    def client(self, peer: str, forwarded: bytes | None) -> str:
        """The address of a request's client; "" where it can't be told.

        It is the peer's, unless that is a trusted proxy: then the last address in `forwarded` (X-Forwarded-For) that is
        no trusted proxy's itself. What stands before it was written by the client, who may write anything: what is no
        address there takes nothing from those that the proxies have written.
        """
        address = _address(peer)
        if address is None or not self._trusts(address):
            return peer
        client = ""
        for text in reversed((forwarded or b"").decode("latin-1").split(",")):
            address = _address(text.strip())
            if address is None:
                break
            client = str(address)
            if not self._trusts(address):
                break
        return client

    def _trusts(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address of a text such as 192.0.2.1, 192.0.2.1:80, 2001:db8::1 or [2001:db8::1]:80."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
