"""What every kgents keeps, wherever it runs. The tests take a `system` that they share with each other; a module that
imports them says which: a `kgents up` here, a cluster in tests/cluster.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from tests.faults.checker import check
from tests.faults.load import Load
from tests.faults.systems import new_seed
from tests.faults.test_quotas import ask, reserved, set_limit
from tests.faults.test_resumed_streams import followed
from tests.isolation.test_prover import ROLES, prove
from tests.support.reached import Reached
from tests.support.tenants import tenant_of
from tests.support.waiting import wait_until

__all__ = [
    "test_a_stream_in_pieces_is_the_whole_stream",
    "test_exactly_as_many_runs_are_admitted_as_there_is_room_for",
    "test_no_operation_reaches_another_tenants_objects",
    "test_what_was_answered_is_there_and_metered_once",
]

CLIENTS = 6
ANSWERS = 300
ASKING, ROOM = 120, 41
SLOW = "/sleep 2 " + "word " * 6  # longer than it takes all of them to ask


def test_what_was_answered_is_there_and_metered_once(system: Reached, tmp_path: Path) -> None:
    seed = new_seed()
    history = tmp_path / "history"
    with tenant_of(system) as tenant:
        with Load(system.url, tenant.key, history, clients=CLIENTS, seed=seed) as load:
            wait_until(lambda: len(load.history.good) >= ANSWERS, seconds=120, what=f"{ANSWERS} good answers")
        verdict = check(system, tenant.http, history)
    assert not verdict.broken, f"KGENTS_SEED={seed}: {verdict}"


def test_exactly_as_many_runs_are_admitted_as_there_is_room_for(system: Reached) -> None:
    with tenant_of(system) as tenant:
        each = reserved(tenant)
        set_limit(tenant, "output_tokens", tenant.balance()["output_tokens"] + each * ROOM)
        assert asyncio.run(ask([system.url], tenant.key, ASKING, SLOW)) == Counter({402: ASKING - ROOM, 200: ROOM})
        tenant.check_nothing_is_left_over()


def test_a_stream_in_pieces_is_the_whole_stream(system: Reached) -> None:
    with tenant_of(system) as tenant:
        _, _, wrong = followed(tenant.http, new_seed(), lambda last: last)
    assert not wrong, wrong[:3]


def test_no_operation_reaches_another_tenants_objects(system: Reached) -> None:
    proof, victims = prove(system, 1, ROLES)
    assert not proof.violations, "\n".join(proof.violations)
    exposed = system.metrics()
    assert [word for victim in victims for word in victim.canaries() if any(word in page for page in exposed)] == []
    log = system.logs()
    assert [text for victim in victims for text in victim.texts if text in log] == []
