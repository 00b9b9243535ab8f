"""Processes stand still for longer than the others wait for them, and go on: what was taken from them stays so."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from kgents.workers.meter_sink import ACK_WAIT
from tests.faults.checker import Verdict, check
from tests.faults.load import Load
from tests.faults.supervisor import Supervisor
from tests.faults.systems import FULL, new_seed, running
from tests.support.results import record

# Together, since each takes its time. In the short form each database has those that leave the API alone, or those that
# don't.
AWAY, ALSO_API = ("worker", "meter"), ("api", "nats")
MORE = [("worker",), ("api",), ("meter",), ("nats",), ("api", "worker"), ("meter", "nats"), ("worker", "nats")]
ALL = [AWAY, ALSO_API, *MORE] * 8  # 112 processes
ROUNDS = {"sqlite": ALL, "postgresql": ALL} if FULL else {"sqlite": [AWAY], "postgresql": [ALSO_API]}
LONGER = ACK_WAIT + 2.0
CLIENTS = 8


def freeze(dialect: str, folder: Path, rounds: Sequence[Sequence[str]], control: str = "") -> Verdict:
    """Freeze the processes of each round for a while, and check what came of the load."""
    seed = new_seed()
    random = Random(seed)
    history = folder / "history.jsonl"
    with running(dialect, folder / "data", control=control) as system, system.up.client() as client:
        with Load(system.up.url, system.up.key, history, clients=CLIENTS, seed=seed) as load:
            supervisor = Supervisor(system.up, load)
            for names in rounds:
                time.sleep(random.uniform(0.0, 0.5))
                with supervisor.frozen(*names):
                    time.sleep(LONGER)
                supervisor.heal()
            given_up = supervisor.given_up
        verdict = check(system.up, client, history, late=supervisor.late)
    print(f"{dialect}: {verdict}")
    record(
        "A pause beyond the ack wait loses nothing and bills nothing twice"
        + (f", control: {control}" if control else ""),
        "tests/faults/test_freezes.py",
        f"{dialect}: {sum(map(len, rounds))} processes frozen for {LONGER:g} s each ({given_up} were taken for dead "
        "meanwhile, and started again) during "
        f"{verdict.calls.total():,} requests: {len(verdict.violations)} violations; "
        f"{supervisor.told()}",
        seed,
    )
    return verdict


@pytest.mark.parametrize("dialect", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_frozen_processes_lose_nothing_and_count_nothing_twice(tmp_path: Path, dialect: str) -> None:
    verdict = freeze(dialect, tmp_path, ROUNDS[dialect])
    assert not verdict.broken, verdict


@pytest.mark.full
def test_without_the_meters_unique_key_a_frozen_meter_counts_usage_twice(tmp_path: Path) -> None:
    verdict = freeze("sqlite", tmp_path, [("meter",)], "no unique key")
    assert [line.split(" {")[0] for line in verdict.violations] == ["the meter has"], verdict
