"""Processes are killed at random moments under load: nothing acknowledged is lost, nothing is counted twice."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest

from tests.faults.checker import Verdict, check
from tests.faults.load import Load
from tests.faults.supervisor import Supervisor
from tests.faults.systems import FULL, new_seed, running
from tests.support.results import record

VICTIMS = ["api"] * 80 + ["worker"] * 80 + ["nats"] * 40 if FULL else ["api"] * 3 + ["worker"] * 2 + ["nats"]
CLIENTS = 8


def torture(dialect: str, folder: Path, victims: list[str], seed: int, control: str = "") -> Verdict:
    """Kill each victim in turn, at moments that the seed chooses, and check what came of the load."""
    random = Random(seed)
    random.shuffle(victims)
    history = folder / "history.jsonl"
    with running(dialect, folder / "data", control=control) as system, system.up.client() as client:
        with Load(system.up.url, system.up.key, history, clients=CLIENTS, seed=seed) as load:
            supervisor = Supervisor(system.up, load)
            for victim in victims:
                time.sleep(random.uniform(0.0, 0.8))
                supervisor.kill(victim)
                supervisor.heal()
        verdict = check(system.up, client, history, seconds=15 if control else 120, late=supervisor.late)
    print(f"{dialect}: {verdict}\n{supervisor.told()}")
    record(
        "A crash loses nothing and bills nothing twice" + (f", control: {control}" if control else ""),
        "tests/faults/test_kills.py",
        f"{dialect}: {len(victims)} kill -9 ({victims.count('api')} API, {victims.count('worker')} worker, "
        f"{victims.count('nats')} nats-server) during {verdict.calls.total():,} requests: {len(verdict.violations)} "
        f"violations; {supervisor.told()}",
        seed,
    )
    return verdict


@pytest.mark.parametrize("dialect", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_killed_processes_lose_nothing_and_count_nothing_twice(tmp_path: Path, dialect: str) -> None:
    verdict = torture(dialect, tmp_path, list(VICTIMS), new_seed())
    assert not verdict.broken, verdict


def test_a_relay_that_does_not_wait_for_acknowledgements_is_found_out(tmp_path: Path) -> None:
    verdict = torture("sqlite", tmp_path, ["nats"] * 5, new_seed(), "no acknowledgement")
    assert [line.split(" {")[0] for line in verdict.violations] == ["the meter has"], verdict
