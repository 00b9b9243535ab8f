"""The network policies allow what docs/saas/security.md says, and nothing else."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from tests.support.flows import PEERS, PORTS, documented, ours, untried
from tests.support.manifests import OVERLAYS, rendered
from tests.support.policies import allowed


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_exactly_the_documented_flows_are_allowed(overlay: str) -> None:
    policies = [each for each in rendered(overlay) if each["kind"] == "NetworkPolicy"]
    mine = ours(overlay)
    pairs = [(one, other) for one, other in product(PEERS, PEERS) if one in mine or other in mine]
    found = {
        (source, target, port)
        for (source, target), port in product(pairs, PORTS)
        if allowed(policies, PEERS[source], PEERS[target], port)
    }
    assert found == documented(overlay)
    assert len(found) > 20


def test_names_are_asked_for_over_udp_too() -> None:
    policies = [each for each in rendered("conformance") if each["kind"] == "NetworkPolicy"]
    assert all(allowed(policies, PEERS[name], PEERS["dns"], 53, "UDP") for name in ours("conformance"))
    assert not allowed(policies, PEERS["api"], PEERS["internet"], 53, "UDP")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_policy_allows_what_is_not_tried(overlay: str) -> None:
    policies = [each for each in rendered(overlay) if each["kind"] == "NetworkPolicy"]
    assert policies
    assert untried(policies) == []


@pytest.mark.parametrize(
    "port",
    [
        {"port": 2379, "protocol": "TCP"},
        {"port": 5432, "endPort": 5440, "protocol": "TCP"},
        {"port": "metrics", "protocol": "TCP"},
        {"port": 443, "protocol": "UDP"},
        {"protocol": "TCP"},
        {"port": 2379},
    ],
)
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_port_that_is_not_tried_is_seen(direction: str, port: dict[str, Any]) -> None:
    """The control of the test above."""
    policies = [each for each in rendered("kind") if each["kind"] == "NetworkPolicy"]
    (api,) = (each for each in policies if each["metadata"]["name"] == "kgents-api")
    api["spec"][direction][0]["ports"].append(port)
    assert untried(policies) == [("kgents-api", port)]
