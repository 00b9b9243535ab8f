"""Who may talk to whom under a set of NetworkPolicies.

As https://kubernetes.io/docs/concepts/services-networking/network-policies/ defines it: policies that select a pod in a
direction isolate it there, and what any of them allows is allowed; a connection needs leave from both its ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Labels = Mapping[str, str]
Policy = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Peer:
    """A pod, or with an `address` something outside of the cluster."""

    name: str
    namespace: str = ""
    labels: Labels = field(default_factory=dict)
    namespace_labels: Labels = field(default_factory=dict)
    address: str = ""


def allowed(policies: Sequence[Policy], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection from `source` to a port of `target` may be made."""
    out = source.address or _allows(policies, source, target, port, protocol, "egress", "to")
    into = target.address or _allows(policies, target, source, port, protocol, "ingress", "from")
    return bool(out and into)


def _allows(
    policies: Sequence[Policy], mine: Peer, other: Peer, port: int, protocol: str, direction: str, key: str
) -> bool:
    selecting = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == mine.namespace
        and _selects(policy["spec"]["podSelector"], mine.labels)
        and direction.capitalize() in _types(policy["spec"])
    ]
    if not selecting:
        return True
    return any(
        _port_fits(rule, port, protocol) and (not rule.get(key) or any(_fits(peer, mine, other) for peer in rule[key]))
        for spec in selecting
        for rule in spec.get(direction) or ()
    )


def _types(spec: Mapping[str, Any]) -> Sequence[str]:
    return spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def _port_fits(rule: Mapping[str, Any], port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    return not ports or any(
        each.get("protocol", "TCP") == protocol
        and ("port" not in each or each["port"] <= port <= each.get("endPort", each["port"]))
        for each in ports
    )


def _fits(peer: Mapping[str, Any], mine: Peer, other: Peer) -> bool:
    if "ipBlock" in peer:
        if not other.address:
            return False
        block, address = peer["ipBlock"], ip_address(other.address)
        return address in ip_network(block["cidr"]) and not any(
            address in ip_network(each) for each in block.get("except", ())
        )
    if other.address:
        return False
    if "namespaceSelector" in peer:
        if not _selects(peer["namespaceSelector"], other.namespace_labels):
            return False
    elif other.namespace != mine.namespace:
        return False
    return _selects(peer.get("podSelector", {}), other.labels)


def _selects(selector: Mapping[str, Any], labels: Labels) -> bool:
    assert set(selector) <= {"matchLabels"}, "only matchLabels are understood"
    return bool(selector.get("matchLabels", {}).items() <= labels.items())
