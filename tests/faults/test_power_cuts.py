"""The power is cut under load: what was acknowledged is on the disk, in the ledger and, in the end, in the meter."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from random import Random

import pytest

from tests.faults.checker import Verdict, check
from tests.faults.disk import Disk, a_disk, family
from tests.faults.load import Load
from tests.faults.supervisor import Supervisor
from tests.faults.systems import FULL, System, new_seed, running
from tests.support.results import record

CUTS = 20 if FULL else 1
CLIENTS = 8
COMMAND = "tests/faults/test_power_cuts.py"
LOST = re.compile("are lost|answered, but the runs are|the meter has")


def cut_power(dialect: str, folder: Path, cuts: int, control: str = "") -> Verdict:
    """Cut the power at moments that the seed chooses, start again, and check what came of the load."""
    seed = new_seed()
    random = Random(seed)
    history = folder / "history.jsonl"
    with (
        a_disk() as disk,
        running(dialect, disk.path / "data", control=control, durable_in=disk.path) as system,
        system.up.client() as client,
    ):
        if system.postgres:
            os.sync()  # initdb was told not to
        with Load(system.up.url, system.up.key, history, clients=CLIENTS, seed=seed) as load:
            supervisor = Supervisor(system.up, load)
            for _ in range(cuts):
                with supervisor.frozen("meter"):  # so that there is usage on the bus
                    time.sleep(random.uniform(0.3, 1.5))
                    _cut(disk, system)
                if control and client.get("/v1/tenant").status_code == 401:
                    load.gave_up = True
                    break
                supervisor.heal()
        if client.get("/v1/tenant").status_code == 401:
            verdict = Verdict(violations=["the API keys are lost, and all else"])
        else:
            verdict = check(system.up, client, history, seconds=15 if control else 120, late=supervisor.late)
        _stop(system)
    print(f"{dialect}: {verdict}")
    record(
        "Acknowledged means on the disk" + (f", control: {control}" if control else ""),
        COMMAND,
        f"{dialect}: {cuts} power cuts during {verdict.calls.total():,} requests: {len(verdict.violations)} "
        f"violations; {supervisor.told()}",
        seed,
    )
    return verdict


def _cut(disk: Disk, system: System) -> None:
    up, postgres = system.up, system.postgres
    pids = [int(up.facts["pids"]["up"]), *(up.pid(name) for name in ("api", "worker", "meter", "nats"))]
    if postgres:
        pids += family(postgres.process.pid)
    disk.cut(pids)
    up.stop()  # it is dead; what it printed is read to its end
    if postgres:
        postgres.stop()
        postgres.start()
    up.start()


def _stop(system: System) -> None:
    system.up.stop()
    if system.postgres:
        system.postgres.stop()


@pytest.mark.parametrize("dialect", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path: Path, dialect: str) -> None:
    verdict = cut_power(dialect, tmp_path, CUTS)
    assert not verdict.broken, verdict


@pytest.mark.parametrize("control", ["lazy database", pytest.param("lazy bus", marks=pytest.mark.full)])
def test_without_fsync_a_power_cut_is_found_to_lose(tmp_path: Path, control: str) -> None:
    verdict = cut_power("sqlite", tmp_path, 1, control)
    assert any(LOST.search(line) for line in verdict.violations), verdict
