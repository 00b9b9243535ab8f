"""The network policies allow what docs/saas/security.md says, and nothing else."""

from __future__ import annotations

from itertools import product

import pytest

from tests.support.flows import PEERS, PORTS, documented, ours
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
