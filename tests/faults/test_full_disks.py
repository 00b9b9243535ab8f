"""The disk of a store is full for a while: what can't be kept is refused, nothing is lost, all goes on by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.faults.checker import Verdict, check
from tests.faults.disk import SmallDisk, a_small_disk, family
from tests.faults.load import Load
from tests.faults.supervisor import Supervisor, kill
from tests.faults.systems import FULL, System, new_seed, running
from tests.support.postgres import PostgresServer
from tests.support.results import record
from tests.support.up import Up
from tests.support.waiting import wait_until

ROUNDS = 10 if FULL else 1
FOR = 3.0  # seconds
FELT_WITHIN = 60.0
WITHIN = 30.0
CLIENTS = 8
STORES = ["everything", "bus", pytest.param("meter", marks=pytest.mark.postgres)]
STORES += [pytest.param("database", marks=pytest.mark.postgres)]
# How the health page tells of a full disk. A bus that takes nothing leaves the usage where it is, in SQL.
FELT: dict[str, Callable[[Mapping[str, Any], float], bool]] = {
    "everything": lambda components, _: components["sql"]["status"] == "disconnected",
    "bus": lambda components, usual: (components["sql"]["backlog"] or 0) > usual,
    "meter": lambda components, _: components["meter"]["status"] == "disconnected",
    "database": lambda components, _: components["sql"]["status"] == "disconnected",
}


@contextmanager
def on_a_small_disk(store: str, folder: Path, disk: SmallDisk, control: str = "") -> Iterator[System]:
    """A kgents of which the one store is on the disk, and all the others are not."""
    data = disk.path / "data"
    if store == "everything":
        with running("sqlite", data) as system:
            yield system
    elif store == "bus":
        (folder / "data").mkdir()
        (folder / "data" / "nats").symlink_to(disk.path, target_is_directory=True)
        with running("sqlite", folder / "data", control=control) as system:
            yield system
    elif store == "meter":
        (folder / "nats").mkdir()
        data.mkdir()
        (data / "nats").symlink_to(folder / "nats", target_is_directory=True)
        with running("postgresql", data) as system:
            yield system
    else:
        with running("postgresql", folder / "data", durable_in=disk.path) as system:
            yield system


def fill(store: str, folder: Path, rounds: int, control: str = "") -> tuple[Verdict, int]:
    """Fill the store's disk for a while, again and again, and check what came of the load; with how often the health
    page told of it.
    """
    seed = new_seed()
    history = folder / "history.jsonl"
    with (
        a_small_disk("512m") as disk,
        on_a_small_disk(store, folder, disk, control) as system,
        system.up.client() as client,
    ):
        with Load(system.up.url, system.up.key, history, clients=CLIENTS, seed=seed) as load:
            supervisor = Supervisor(system.up, load)
            felt = restarts = 0
            for _ in range(rounds):
                with disk.full():
                    felt += _is_felt(system.up, FELT[store], supervisor.usual)
                    time.sleep(FOR)
                restarts += _start_again(system.postgres)
                supervisor.heal(WITHIN)
        verdict = check(system.up, client, history, seconds=15 if control else 120, late=supervisor.late)
    healed = supervisor.told(WITHIN)
    print(f"{store}: {verdict}\n{healed}")
    record(
        "A full disk loses nothing" + (f", control: {control}" if control else ""),
        "tests/faults/test_full_disks.py",
        f"{store}: full {rounds} times during {verdict.calls.total():,} requests, {felt} of them told of by the health "
        f"page: {len(verdict.violations)} violations; {healed}"
        + (f"; PostgreSQL gave up and was started again {restarts} times" if restarts else ""),
        seed,
    )
    return verdict, felt


@pytest.mark.parametrize("store", STORES)
def test_a_full_disk_loses_nothing_and_is_got_over(tmp_path: Path, store: str) -> None:
    verdict, felt = fill(store, tmp_path, ROUNDS)
    assert not verdict.broken, verdict
    assert felt == ROUNDS


@pytest.mark.full
def test_a_relay_that_does_not_wait_for_acknowledgements_is_found_out(tmp_path: Path) -> None:
    verdict, _ = fill("bus", tmp_path, 1, "no acknowledgement")
    assert [line.split(" {")[0] for line in verdict.violations] == ["the meter has"], verdict


def _is_felt(up: Up, tells: Callable[[Mapping[str, Any], float], bool], usual: float) -> bool:
    """Whether the health page tells of a full disk in time. A store may have room of its own for a while."""

    def told() -> bool:
        with suppress(httpx2.HTTPError):
            return tells(up.health()["components"], usual)
        return False

    with suppress(TimeoutError):
        wait_until(told, seconds=FELT_WITHIN)
        return True
    return False


def _start_again(postgres: PostgresServer | None) -> bool:
    """Start a PostgreSQL that has given up, as its service manager does: where its log does not fit, it ends."""
    if postgres is None or postgres.process.is_running():
        return False
    postgres.stop()
    postgres.start()
    return True


def test_a_process_that_dies_while_the_disk_is_full_is_started_again(tmp_path: Path) -> None:
    with a_small_disk("512m") as disk, on_a_small_disk("everything", tmp_path, disk) as system:
        up, before = int(system.up.facts["pids"]["up"]), system.up.pid("worker")
        processes = len(family(up))
        with disk.full():
            kill(before)
            wait_until(lambda: before not in family(up) and len(family(up)) == processes, what="it is started again")
        wait_until(lambda: system.up.pid("worker") != before, what="its pid is told")
        with system.up.client() as client:
            body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
            wait_until(lambda: client.post("/v1/chat/completions", json=body).is_success, seconds=30)
