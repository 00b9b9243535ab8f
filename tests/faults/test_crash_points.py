"""A process dies at each named point of a request's way to the meter: ledger and meter have what was answered."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest

from tests.faults.checker import Verdict, check
from tests.faults.crashing import POINTS, arm, armed
from tests.faults.load import Load
from tests.faults.supervisor import Supervisor
from tests.faults.systems import FULL, new_seed, running
from tests.support.results import record
from tests.support.waiting import wait_until

# In the short form each database has half of the points, in turn.
EACH = list(POINTS)
NAMES = {"sqlite": EACH * 50, "postgresql": EACH * 50} if FULL else {"sqlite": EACH[::2], "postgresql": EACH[1::2]}
CLIENTS = 8
COMMAND = "tests/faults/test_crash_points.py"


def crash(dialect: str, folder: Path, names: list[str], seed: int, control: str = "") -> tuple[Verdict, str]:
    """Have a process die at each point in turn, at moments that the seed chooses, and check what came of the load; with
    how it got over that, in words.
    """
    random = Random(seed)
    random.shuffle(names)
    history, points = folder / "history.jsonl", folder / "points"
    points.mkdir()
    with (
        running(dialect, folder / "data", control=control, points=points) as system,
        system.up.client() as client,
    ):
        with Load(system.up.url, system.up.key, history, clients=CLIENTS, seed=seed) as load:
            supervisor = Supervisor(system.up, load)
            for name in names:
                time.sleep(random.uniform(0.0, 0.3))
                if first := POINTS[name].first:
                    arm(points, first)
                arm(points, name)
                wait_until(lambda name=name: not armed(points, name), seconds=60, what=f"somebody passes {name!r}")
                supervisor.heal()
        verdict = check(system.up, client, history, late=supervisor.late)
    print(f"{dialect}: {verdict}")
    return verdict, supervisor.told()


@pytest.mark.parametrize("dialect", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_crash_at_any_point_loses_nothing_and_counts_nothing_twice(tmp_path: Path, dialect: str) -> None:
    seed = new_seed()
    names = NAMES[dialect]
    verdict, told = crash(dialect, tmp_path, list(names), seed)
    record(
        "Exactly-once metering",
        COMMAND,
        f"{dialect}: {len(set(names))} crash points, {len(names)} crashes, during {verdict.calls.total():,} requests: "
        f"{len(verdict.violations)} violations; {told}",
        seed,
    )
    assert not verdict.broken, verdict


def test_without_the_meters_unique_key_a_crash_counts_usage_twice(tmp_path: Path) -> None:
    seed = new_seed()
    verdict, _ = crash("sqlite", tmp_path, ["usage accepted by the meter"], seed, "no unique key")
    assert [line.split(" {")[0] for line in verdict.violations] == ["the meter has"], verdict
    record("Exactly-once metering, control", COMMAND, "no unique key in the meter: found", seed)
