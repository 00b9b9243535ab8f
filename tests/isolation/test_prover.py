"""No operation of the API tells a tenant anything of another's objects, or changes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from tests.isolation.prover import Operation, Proof, Prover, operations_of
from tests.isolation.systems import System, running
from tests.isolation.world import Tenant, tenant_with_everything
from tests.support.reached import Reached
from tests.support.results import record

FULL = bool(os.environ.get("KGENTS_FULL"))
TENANTS = 3 if FULL else 2  # where the attacker stands among them decides how ids compare
ROLES = ("owner", "developer", "viewer", "admin") if FULL else ("owner", "viewer", "admin")


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running(request.param, tmp_path_factory.mktemp("isolation")) as made:
        yield made


def document(up: Reached) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(f"{up.url}/openapi.json", trust_env=False).raise_for_status().json()
    return found


def prove(
    up: Reached, attacker: int, roles: tuple[str, ...], only: Callable[[Operation], bool] = lambda operation: True
) -> tuple[Proof, list[Tenant]]:
    """Some tenants, of which one attacks the others with a key of each role, by the operations that `only` lets."""
    with ExitStack() as stack:
        tenants = [stack.enter_context(tenant_with_everything(up)) for _ in range(TENANTS)]
        victims = [tenant for index, tenant in enumerate(tenants) if index != attacker]
        views: list[str] = []
        before = [_view(victim, views) for victim in victims]
        clients = {role: tenants[attacker].http[role] for role in roles if role != "admin"}
        if "admin" in roles:
            clients["admin"] = stack.enter_context(up.admin())
        operations = [operation for operation in operations_of(document(up)) if only(operation)]
        proof = Prover(operations, tenants[attacker], victims).attack(clients)
        for victim, seen in zip(victims, before, strict=True):
            now = _view(victim, views)
            proof.violations += [
                f"{part} of a victim changed" for part in seen | now if seen.get(part) != now.get(part)
            ]
        proof.violations += views
        return proof, victims


def _view(victim: Tenant, violations: list[str]) -> dict[str, Any]:
    """What a victim sees. A view that can't be had, or has more than a victim's own objects, is a violation."""
    try:
        return victim.view()
    except (httpx2.HTTPStatusError, AssertionError) as error:
        violations.append(f"view of a victim changed: {error}")
        return {}


CANCELS = ("POST /v1/runs/{run_id}/cancel", "POST /v1/responses/{response_id}/cancel")


@pytest.mark.parametrize("attacker", range(TENANTS) if FULL else [1])
def test_no_operation_reaches_another_tenants_objects(system: System, attacker: int) -> None:
    proof, victims = prove(system.up, attacker, ROLES)
    assert not proof.violations, "\n".join(proof.violations)
    running = [run for victim in victims for run in (*victim.running, *victim.refs["response"])]
    assert {(role, cancel, run) for role in ROLES for cancel in CANCELS for run in running} <= proof.tried
    texts = [text for victim in victims for text in victim.texts]
    pages = system.up.metrics()
    words = [word for victim in victims for word in victim.canaries()]
    assert [word for word in words if any(word in page for page in pages)] == [], "metrics name tenants' objects"
    log = system.up.logs_until_now()
    assert [text for text in texts if text in log] == [], "logs have tenants' texts"
    record(
        "Tenant isolation",
        "KGENTS_FULL=1 pytest tests/isolation/test_prover.py",
        f"{'PostgreSQL' if system.postgres else 'SQLite'}, by tenant {attacker} of {TENANTS}: {proof.operations} "
        f"operations, {proof.tries} tries: {len(proof.violations)} leaks",
    )
