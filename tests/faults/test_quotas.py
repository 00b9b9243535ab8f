"""Hundreds of runs ask for the room that there is for some, in two processes at once: exactly those are admitted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.load import Connection, Cut
from tests.faults.systems import FULL, another_api, running
from tests.support.results import record
from tests.support.tenants import Tenant, tenant_of
from tests.support.up import Up
from tests.support.waiting import eventually, wait_until

ASKING, ROOM = (500, 97) if FULL else (120, 41)
MORE = 3
SLOW = "/sleep 1 " + "word " * (12 if FULL else 6)  # longer than it takes all of them to ask
COMMAND = "tests/faults/test_quotas.py"
DIALECTS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


async def ask(urls: Sequence[str], key: str, count: int, text: str) -> Counter[int]:
    """So many runs at once, in turn of each process; answers their statuses, 0 for one that was cut."""

    async def one(url: str) -> int:
        connection = Connection(url, key, patience=60)
        body = {"model": "echo", "messages": [{"role": "user", "content": text}]}
        try:
            return (await connection.post("/v1/chat/completions", body))[0]
        except Cut:
            return 0
        finally:
            connection.close()

    return Counter(await asyncio.gather(*(one(urls[number % len(urls)]) for number in range(count))))


def reserved(tenant: Tenant) -> int:
    """What one run of those reserves, in output tokens."""
    run = tenant.run(SLOW, mode="background")
    held: int = wait_until(lambda: tenant.balance("reserved")["output_tokens"], what="a run holds a reservation")
    tenant.http.post(f"/v1/runs/{run['id']}/cancel").raise_for_status()
    tenant.ended(run["id"])
    return held


def set_limit(tenant: Tenant, meter: str, limit: int) -> None:
    with tenant.up.admin() as admin:
        admin.patch(f"/v1/tenants/{tenant.id}", json={"quotas": {meter: limit}}).raise_for_status()


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("short", [0, 1], ids=["the exact limit", "one unit less"])
def test_as_many_runs_are_admitted_as_there_is_room_for(tmp_path: Path, dialect: str, short: int) -> None:
    with (
        running(dialect, tmp_path / "data") as system,
        another_api(system) as (url, _),
        tenant_of(system.up) as tenant,
    ):
        each = reserved(tenant)
        used = tenant.balance()["output_tokens"]
        set_limit(tenant, "output_tokens", used + each * ROOM - short)
        statuses = asyncio.run(ask([system.up.url, url], tenant.key, ASKING, SLOW))
        assert statuses == {200: ROOM - short, 402: ASKING - ROOM + short}
        tenant.check_nothing_is_left_over()
    record(
        "Quotas are exact",
        COMMAND,
        f"{dialect}, {'one token less' if short else 'at the exact limit'}: {ASKING} at once in 2 processes, room for "
        f"{ROOM - short}: {statuses[200]} admitted",
    )


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_a_killed_process_held_is_settled_to_what_was_used(tmp_path: Path, dialect: str) -> None:
    with running(dialect, tmp_path / "data") as system, tenant_of(system.up) as tenant:
        each = reserved(tenant)
        limit = tenant.balance()["output_tokens"] + each * ROOM
        set_limit(tenant, "output_tokens", limit)
        with another_api(system) as (url, process):

            async def kill_once_all_hold() -> Counter[int]:
                held = asyncio.create_task(ask([url], tenant.key, ROOM, SLOW))
                await eventually(lambda: tenant.balance("remaining")["output_tokens"] < each)
                refused = await ask([system.up.url], tenant.key, 10, SLOW)
                process.kill()
                await held
                return refused

            assert asyncio.run(kill_once_all_hold()) == {402: 10}
        wait_until(lambda: tenant.balance("reserved")["output_tokens"] == 0, seconds=60, what="all is settled")
        assert tenant.balance()["output_tokens"] == limit
        set_limit(tenant, "output_tokens", limit + each * MORE)
        assert asyncio.run(ask([system.up.url], tenant.key, 2 * MORE, SLOW)) == {200: MORE, 402: MORE}
        tenant.check_nothing_is_left_over()
    record(
        "Quotas are exact when a holder is killed",
        COMMAND,
        f"{dialect}: a process with {ROOM} reservations killed; "
        f"each settled as used, then {MORE} of {2 * MORE} admitted where there is room for {MORE}",
    )


@pytest.mark.postgres
def test_without_the_lock_on_the_balance_more_are_admitted(tmp_path: Path) -> None:
    with (
        running("postgresql", tmp_path / "data", control="no lock") as system,
        another_api(system, control="no lock") as (url, _),
    ):
        assert any(_admits_too_many(system.up, url) for _ in range(20))
    record("Quotas are exact, control", COMMAND, "postgresql: without the lock on the balance more are admitted: found")


def _admits_too_many(up: Up, url: str) -> bool:
    with tenant_of(up, quotas={"runs": 10}) as tenant:
        return asyncio.run(ask([up.url, url], tenant.key, 40, "hi"))[200] > 10
