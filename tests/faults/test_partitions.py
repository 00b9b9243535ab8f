"""The API and the worker lose touch with NATS and PostgreSQL, one at a time or together, both ways or one way: what was
acknowledged stays so, and is counted once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

import pytest

from kgents.workers.meter_sink import ACK_WAIT
from tests.faults.checker import Verdict, check
from tests.faults.load import Load
from tests.faults.supervisor import Supervisor
from tests.faults.systems import FULL, new_seed, running
from tests.support.proxy import FaultyProxy
from tests.support.results import record

ROUNDS, LONG = (100, 20) if FULL else (4, 0)
SHORT = 3.0 if FULL else 1.5  # seconds, at most
LONGER = ACK_WAIT + 2.0
KINDS: list[Kind] = ["hang", "silence", "refuse"]
CLIENTS = 8

Kind = Literal["hang", "silence", "refuse"]
# The short form has only the one with the more links.
DIALECTS = [*(["sqlite"] if FULL else []), pytest.param("postgresql", marks=pytest.mark.postgres)]


class Partition(NamedTuple):
    """Links that fail together for a while. Where it `ends_in_reset`, what was on its way is lost, as when it lasts
    for longer than TCP tries.
    """

    links: tuple[str, ...]
    kind: Kind
    seconds: float
    ends_in_reset: bool


def partitions(links: Sequence[str], random: Random) -> list[Partition]:
    """The partitions of a test: of each link, of all links of a process, and of all links to a dependency."""
    ends = {end for link in links for end in link.split("-")}
    groups = [*((link,) for link in links), *(tuple(link for link in links if end in link) for end in sorted(ends))]
    seconds = [LONGER] * LONG + [random.uniform(0.2, SHORT) for _ in range(ROUNDS - LONG)]
    random.shuffle(groups)
    random.shuffle(seconds)
    return [
        Partition(groups[number % len(groups)], random.choice(KINDS), length, random.random() < 0.5)
        for number, length in enumerate(seconds)
    ]


def part(proxies: Mapping[str, FaultyProxy], partition: Partition, supervisor: Supervisor) -> None:
    """Have the links fail, and heal them."""
    affected = [proxies[link] for link in partition.links]
    with supervisor.frozen("meter"):  # so that there is usage under way to it
        time.sleep(0.3)
        for proxy in affected:
            getattr(proxy, partition.kind)()
    time.sleep(partition.seconds)
    for proxy in affected:
        if partition.ends_in_reset:
            proxy.cut()
        proxy.heal()


def endure(dialect: str, folder: Path, chosen: Sequence[Partition] = (), control: str = "") -> Verdict:
    """Let kgents have its partitions under load, and check what came of it."""
    seed = new_seed()
    random = Random(seed)
    history = folder / "history.jsonl"
    with (
        running(dialect, folder / "data", control=control, proxied=True) as system,
        system.up.client() as client,
    ):
        rounds = chosen or partitions(list(system.links), random)
        with Load(system.up.url, system.up.key, history, clients=CLIENTS, seed=seed) as load:
            supervisor = Supervisor(system.up, load)
            for partition in rounds:
                time.sleep(random.uniform(0.0, 0.5))
                part(system.links, partition, supervisor)
                try:
                    supervisor.heal()
                except TimeoutError as error:
                    raise TimeoutError(f"{partition}: {error}") from error
        verdict = check(system.up, client, history, late=supervisor.late)
    print(f"{dialect}: {verdict}")
    record(
        "A partition loses nothing and bills nothing twice" + (f", control: {control}" if control else ""),
        "tests/faults/test_partitions.py",
        f"{dialect}: {len(rounds)} partitions of API and worker from NATS and database ({LONG} of {LONGER:g} s) during "
        f"{verdict.calls.total():,} requests: {len(verdict.violations)} violations; "
        f"{supervisor.told()}",
        seed,
    )
    return verdict


@pytest.mark.parametrize("dialect", DIALECTS)
def test_partitions_lose_nothing_and_count_nothing_twice(tmp_path: Path, dialect: str) -> None:
    verdict = endure(dialect, tmp_path)
    assert not verdict.broken, verdict


@pytest.mark.full
def test_without_the_meters_unique_key_a_partition_counts_usage_twice(tmp_path: Path) -> None:
    verdict = endure("sqlite", tmp_path, [Partition(("worker-nats",), "hang", 3.0, True)], "no unique key, impatient")
    assert [line.split(" {")[0] for line in verdict.violations] == ["the meter has"], verdict
