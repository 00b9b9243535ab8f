"""Who may talk to whom: the table of docs/saas/security.md, and who there is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tests.support.manifests import ROOT
from tests.support.policies import Peer, Policy

NAMESPACE = "kgents-agents"
COLLECTOR = "log-collector"
OWN = ("nats", "nats-backup", "postgres", "meter", "loki", "grafana")
PORTS = (22, 53, 80, 443, 3000, 3100, 4222, 4318, 5432, 6222, 6379, 8080, 8222, 8888, 9090, 9464, 13133)
"""Those that the tests try."""
TRIED = {("UDP", 53), *(("TCP", port) for port in PORTS)}


def _own(called: str, /, **labels: str) -> Peer:
    own = {f"app.kubernetes.io/{key}": value for key, value in labels.items()}
    return Peer(called, NAMESPACE, own, {"kubernetes.io/metadata.name": NAMESPACE})


PEERS = {
    peer.name: peer
    for peer in (
        *(_own(part, name="kgents", component=part) for part in ("api", "worker", "migrate")),
        *(_own(part, name=f"kgents-{part}") for part in OWN),
        _own("another pod", name="something"),
        Peer(
            COLLECTOR,
            "kgents-logs",
            {"app.kubernetes.io/name": "kgents-log-collector"},
            {"kgents.dev/role": "log-collector", "kubernetes.io/metadata.name": "kgents-logs"},
        ),
        Peer("gateway", "kong", {}, {"kgents.dev/role": "gateway"}),
        Peer("monitoring", "monitoring", {}, {"kgents.dev/role": "monitoring"}),
        Peer("tracing", "tracing", {}, {"kgents.dev/role": "tracing"}),
        Peer("dns", "kube-system", {}, {"kubernetes.io/metadata.name": "kube-system"}),
        Peer("another namespace", "default", {}, {"kubernetes.io/metadata.name": "default"}),
        Peer("internet", address="93.184.216.34"),
        Peer("metadata service", address="169.254.169.254"),
        Peer("private address", address="10.1.2.3"),
        Peer("database", address="10.20.3.4"),
    )
}
OURS = [name for name, peer in PEERS.items() if peer.namespace == NAMESPACE]
WITH_COLLECTOR = ("conformance", "production")


def ours(overlay: str) -> list[str]:
    """The peers that an overlay has policies for."""
    return [*OURS, *([COLLECTOR] if overlay in WITH_COLLECTOR else [])]


def documented(overlay: str) -> set[tuple[str, str, int]]:
    """The rows of the table; the network of a managed database is production's only, and not each has the collector."""
    text = (ROOT / "docs" / "saas" / "security.md").read_text()
    rows = re.findall(r"^\| ([\w-]+) \| ([\w-]+) \| (\d+) \|", text, re.MULTILINE)
    return {
        (source, target, int(port))
        for row_source, target, port in rows
        if target != "database" or overlay == "production"
        if target != COLLECTOR or overlay in WITH_COLLECTOR
        for source in (ours(overlay) if row_source == "all" else [row_source])
    }


def untried(policies: Iterable[Policy]) -> list[tuple[str, Any]]:
    """What policies let through where the tests don't look: another port or protocol, a port by name, or a range; with
    the policy's name.
    """
    return [
        (policy["metadata"]["name"], port)
        for policy in policies
        for direction in ("ingress", "egress")
        for rule in policy["spec"].get(direction) or ()
        for port in rule.get("ports") or ()
        if "endPort" in port or (port.get("protocol", "TCP"), port.get("port")) not in TRIED
    ]
