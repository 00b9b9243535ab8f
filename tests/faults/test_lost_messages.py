"""The bus loses the queue of runs: each run is ended all the same, once, and nothing stays reserved."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path

import nats
import pytest

from kgents.bus.streams import RUNS_STREAM
from kgents.workers.runs import LOOK, PATIENCE, SLOTS
from tests.faults.systems import FULL, System, running
from tests.support.results import record
from tests.support.tenants import Tenant, tenant_of
from tests.support.waiting import eventually

HOLDING = SLOTS // 2  # as many as a worker carries out at once of one tenant, so that the others wait
WAITING = 300 if FULL else 20


async def _purge(system: System, messages: int) -> None:
    """Wait until the queue has so many messages, and lose them."""
    endpoint = json.loads((system.up.data / "nats/endpoint.json").read_text())
    connection = await nats.connect(
        f"nats://127.0.0.1:{endpoint['port']}", user=endpoint["user"], password=endpoint["password"]
    )
    stream = connection.jetstream()

    async def all_there() -> bool:
        return (await stream.stream_info(RUNS_STREAM)).state.messages == messages

    try:
        await eventually(all_there, seconds=30, what="every run has its message in the queue")
        await stream.purge_stream(RUNS_STREAM)
    finally:
        await connection.close()


def _lose(system: System, tenant: Tenant) -> list[str]:
    """Have runs wait in the queue, behind others that hold every worker, and lose it; answers the waiting runs."""
    holding = [tenant.run("/sleep 100 a b", mode="background")["id"] for _ in range(HOLDING)]
    waiting = [tenant.run("hello", mode="background")["id"] for _ in range(WAITING)]
    asyncio.run(_purge(system, HOLDING + WAITING))
    time.sleep(PATIENCE + 2 * LOOK)  # until the worker has given back what it has in hand: it knows of these runs
    for run_id in holding:
        tenant.http.post(f"/v1/runs/{run_id}/cancel").raise_for_status()
        tenant.ended(run_id)
    return waiting


@pytest.mark.parametrize("dialect", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_runs_whose_messages_are_lost_are_ended(tmp_path: Path, dialect: str) -> None:
    with running(dialect, tmp_path / "data") as system, tenant_of(system.up) as tenant:
        ended = [tenant.ended(run_id) for run_id in _lose(system, tenant)]
        system.up.settled()
        reserved = tenant.balance("reserved")
        metered = Counter(event["run_id"] for event in tenant.all("/v1/usage/events") if event["meter"] == "runs")
    twice = sum(metered[run["id"]] != 1 for run in ended)
    record(
        "Queued runs outlive the bus's queue",
        "tests/faults/test_lost_messages.py",
        f"{dialect}: {HOLDING + WAITING} messages purged, of which {WAITING} of queued runs; all of these completed, "
        f"{twice} not metered once, {sum(reserved.values())} left reserved",
    )
    assert {run["status"] for run in ended} == {"completed"}
    assert twice == 0
    assert set(reserved.values()) == {0}


@pytest.mark.full
def test_without_a_second_message_they_stay_queued(tmp_path: Path) -> None:
    with running("sqlite", tmp_path / "data", control="no second message") as system, tenant_of(system.up) as tenant:
        waiting = _lose(system, tenant)
        with pytest.raises(TimeoutError):
            tenant.ended(waiting[0])
        left = [tenant.http.get(f"/v1/runs/{run_id}").json()["status"] for run_id in waiting].count("queued")
    record(
        "Queued runs outlive the bus's queue, control",
        "tests/faults/test_lost_messages.py",
        f"sqlite: without a second message {left} of {WAITING} runs stay queued",
    )
    assert left == WAITING
