"""Clients cut their streams at random bytes: what the model reported is metered all the same, to the token."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from tests.faults.streams import all_ended, ask_all, chat
from tests.faults.systems import FULL, new_seed, running
from tests.support.reached import METERS
from tests.support.results import record
from tests.support.tenants import tenant_of
from tests.support.waiting import wait_until

STREAMS = 1000 if FULL else 60
WORDS = 40
LENGTH = 12_000  # bytes, about, of a whole stream
COMMAND = "tests/faults/test_cut_streams.py"


@pytest.mark.parametrize("dialect", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_streams_that_are_cut_are_metered_to_the_token(tmp_path: Path, dialect: str) -> None:
    seed = new_seed()
    random = Random(seed)
    words = [WORDS + number % 7 for number in range(STREAMS)]
    asks = [chat("echo", f"/sleep 0.002 /words {count}", random.randrange(1, LENGTH)) for count in words]
    with running(dialect, tmp_path / "data") as system, tenant_of(system.up) as tenant:
        asyncio.run(ask_all(tenant, asks))
        wait_until(lambda: all_ended(tenant), seconds=60, what="all runs have ended")
        system.up.settled()
        runs = list(tenant.all("/v1/runs"))
        reported = sorted(int(run["usage"]["output_tokens"]) for run in runs)
        spoken = sorted(words)
        expected = {meter: sum(run["usage"][meter] for run in runs) for meter in METERS[1:]} | {"runs": STREAMS}
        wait_until(lambda: system.up.metered(tenant.id) == expected, seconds=20, what=f"the meter has {expected}")
        assert {meter: tenant.balance()[meter] for meter in METERS} == expected
    difference = sum(reported) - sum(spoken)
    record(
        "Streams that are cut are billed correctly",
        COMMAND,
        f"{dialect}: {STREAMS:,} streams cut at random bytes: {sum(reported):,} tokens metered, {sum(spoken):,} spoken "
        f"by the model, difference {difference}",
        seed,
    )
    assert reported == spoken
