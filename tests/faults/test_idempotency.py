"""Many clients send one request with one Idempotency-Key at once, while the API is killed: it has one effect."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from tests.faults.checker import all_ended
from tests.faults.load import PAUSE, Connection, Cut
from tests.faults.supervisor import kill
from tests.faults.systems import FULL, System, new_seed, running
from tests.support.results import record
from tests.support.waiting import wait_until

KEYS, RACERS = (200, 50) if FULL else (12, 20)
KILL_EVERY = 4
LIMIT = 60.0  # seconds until a racer has its answer


async def race(system: System, keys: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Have RACERS send each of the keys; answers how often each answer was given, and what broke the promise."""
    random = Random(seed)
    seen: Counter[str] = Counter()
    violations = []
    racers = [Connection(system.up.url, system.up.key) for _ in range(RACERS)]
    for number in range(keys):
        killer = (
            asyncio.create_task(_kill_after(system, random.uniform(0.0, 0.05))) if number % KILL_EVERY == 0 else None
        )
        body = {"model": "echo", "messages": [{"role": "user", "content": f"/sleep 0.01 key{number} a b"}]}
        key = f"{seed}-{number}"
        answers = await asyncio.gather(*(_ask(racer, body, key, seen) for racer in racers))
        if len(set(answers)) != 1:
            violations.append(f"{key}: {len(set(answers))} different answers")
        other = body | {"messages": [{"role": "user", "content": "something else"}]}
        status, problem = await _final(racers[0], other, key, seen)
        if (status, _code(problem)) != (422, "idempotency_key_reused"):
            violations.append(f"{key} with another body: {status} {problem[:200]!r}")
        if killer:
            await killer
    for racer in racers:
        racer.close()
    return seen, violations


async def _kill_after(system: System, seconds: float) -> None:
    await asyncio.sleep(seconds)
    kill(system.up.pid("api"))


async def _ask(racer: Connection, body: object, key: str, seen: Counter[str]) -> bytes:
    status, answer = await _final(racer, body, key, seen)
    return answer if status == 200 else str(status).encode()


async def _final(racer: Connection, body: object, key: str, seen: Counter[str]) -> tuple[int, bytes]:
    """The answer that is not `try again`."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        try:
            status, answer = await racer.post("/v1/chat/completions", body, key)
        except Cut:
            seen["cut"] += 1
        else:
            name = f"{status} {_code(answer)}".strip()
            seen[name] += 1
            if name not in ("409 idempotency_key_in_use", "503 draining"):
                return status, answer
        await asyncio.sleep(PAUSE)
    raise TimeoutError(f"{key} was not answered within {LIMIT:g} s: {seen}")


def _code(answer: bytes) -> str:
    told: dict[str, Any] = orjson.loads(answer)
    return str(told.get("error", {}).get("code") or "")


def effects(system: System) -> Counter[str]:
    """How many runs there are for each key; a run that has not completed stands for itself."""
    found: Counter[str] = Counter()
    with system.up.client() as client:
        after: dict[str, str] = {}
        while True:
            page = client.get("/v1/runs", params={"limit": "100", **after}).raise_for_status().json()
            found.update(
                str(run["output"]["text"]).split()[0]
                if run["status"] == "completed"
                else f"{run['id']} {run['status']}"
                for run in page["data"]
            )
            if not page["has_more"]:
                return found
            after = {"after": page["last_id"]}


@pytest.mark.parametrize("dialect", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_key_has_one_effect_however_many_send_it(tmp_path: Path, dialect: str) -> None:
    seed = new_seed()
    with running(dialect, tmp_path / "data") as system:
        seen, violations = asyncio.run(race(system, KEYS, seed))
        with system.up.client() as client:
            wait_until(lambda: all_ended(client), what="all runs have ended")
            tenant = client.get("/v1/tenant").json()["id"]
            used = client.get("/v1/usage", params={"window": "month"}).json()["data"]
        ledger = {row["meter"]: row["quantity"] for row in used}
        system.up.settled()
        found = effects(system)
        metered = system.up.metered(tenant)
    print(f"{dialect}: {dict(seen)}")
    assert not violations
    assert found == {f"key{number}": 1 for number in range(KEYS)}
    assert metered["runs"] == KEYS
    assert {meter: metered[meter] for meter in ledger} == ledger
    assert set(seen) <= {"200", "409 idempotency_key_in_use", "422 idempotency_key_reused", "503 draining", "cut"}
    record(
        "One effect for an Idempotency-Key",
        "tests/faults/test_idempotency.py",
        f"{dialect}: {KEYS} keys, {RACERS} racers each, {KEYS // KILL_EVERY} kill -9 of the API; answers: "
        f"{', '.join(f'{name} {count:,}' for name, count in sorted(seen.items()))}; {found.total()} runs, "
        f"{metered['runs']} of them metered; {len(violations)} violations",
        seed,
    )


def test_without_claims_a_key_has_several_effects(tmp_path: Path) -> None:
    with running("sqlite", tmp_path / "data", control="no claim") as system:
        seed = new_seed()
        asyncio.run(race(system, 1, seed))
        found = effects(system)
    assert max(found.values()) > 1
    record(
        "One effect for an Idempotency-Key, control",
        "tests/faults/test_idempotency.py",
        f"sqlite: without claims a key has {max(found.values())} effects",
        seed,
    )
