"""An export: everything of one tenant, nothing of others, no secrets, whole or not there."""

from __future__ import annotations

import json
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kgents.clock import SystemClock
from kgents.errors import Conflict, NotFound, Unavailable
from kgents.privacy import export as exporting
from kgents.privacy.export import Exported, export
from kgents.store.engine import Scope, open_store
from kgents.store.tables import agent_versions
from kgents.tenants.model import PLATFORM
from tests.integration.conftest import Database
from tests.integration.privacy.conftest import CANARY, World

pytestmark = pytest.mark.anyio

FILES = {
    *("tenants", "quotas", "api_keys", "agents", "agent_versions", "sessions", "runs", "run_steps", "messages"),
    *("usage_events", "balances", "audit_log", "run_events", "subscriptions", "invoices"),
}


async def exported(world: World, database: Database, tenant: str, target: Path) -> Exported:
    """An export as the application's role, which row-level security binds."""
    store = open_store(database.url)
    try:
        return await export(
            store, world.bus, tenant, target, operator="tester", clock=SystemClock(), tell=lambda text: None
        )
    finally:
        await store.close()


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def left_in(folder: Path) -> list[Path]:
    return list(folder.glob("*out*"))


async def test_everything_of_the_tenant_is_in_it_and_nothing_of_others(
    world: World, database: Database, tmp_path: Path
) -> None:
    mine, _ = await world.plant("mine"), await world.plant("other")
    await exported(world, database, mine, tmp_path / "out")
    assert {path.stem for path in (tmp_path / "out").glob("*.jsonl")} == FILES
    for name in FILES:
        assert len(read(tmp_path / "out", name)) == 1, name
    everything = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert f"{CANARY}other" not in everything
    assert read(tmp_path / "out", "run_events")[0]["data"] == {"text": f"{CANARY}mine"}


async def test_the_manifest_has_the_count_and_the_sum_of_each_file(
    world: World, database: Database, tmp_path: Path
) -> None:
    mine = await world.plant("mine")
    done = await exported(world, database, mine, tmp_path / "out.tar.gz")
    with tarfile.open(done.path) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["format"], manifest["version"], manifest["tenant_id"]) == ("kgents-tenant-export", 1, mine)
    assert {file["name"]: (file["count"], file["sha256"]) for file in manifest["files"]} == {
        path.name: (len(path.read_text().splitlines()), sha256(path.read_bytes()).hexdigest())
        for path in (tmp_path / "out").glob("*.jsonl")
    }


async def test_secrets_are_not_in_it(world: World, database: Database, tmp_path: Path) -> None:
    mine = await world.plant("mine")
    tool = {"type": "mcp", "name": "m", "url": "https://tools.example.com", "headers": {"X-Secret": "s3cret"}}
    definition = json.dumps({"instructions": "", "tools": [tool]})
    await world.store.write(
        Scope.system(), lambda connection: connection.execute(sa.update(agent_versions).values(definition=definition))
    )
    await exported(world, database, mine, tmp_path / "out")
    assert read(tmp_path / "out", "agent_versions")[0]["definition"]["tools"] == [
        {**tool, "headers": {"X-Secret": "***"}}
    ]
    assert read(tmp_path / "out", "api_keys")[0].keys().isdisjoint({"hash", "pepper_version"})


async def test_a_tenant_of_many_pages_is_whole(
    world: World, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = await world.plant("mine")
    rows = [
        {"event_id": f"run_{n}:0:runs", "tenant_id": mine, "meter": "runs", "quantity": 1, "run_id": f"run_{n}",
         "agent_id": "agt_1", "model": "m", "estimated": 0, "occurred_at": 1_700_000_000_000_000 + n // 3}
        for n in range(20)
    ]  # fmt: skip
    table = sa.table("usage_events", *(sa.column(name) for name in rows[0]))
    await world.store.write(Scope.system(), lambda connection: connection.execute(sa.insert(table), rows))
    monkeypatch.setattr(exporting, "PAGE", 4)
    done = await exported(world, database, mine, tmp_path / "out")
    found = [event["event_id"] for event in read(tmp_path / "out", "usage_events")]
    assert (len(found), len(set(found)), done.counts["usage_events.jsonl"]) == (21, 21, 21)


async def test_an_export_is_in_the_platforms_audit_log_before_anything_is_read(
    world: World, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = await world.plant("mine")

    def fail(*_args: object, **_fields: object) -> None:
        raise Unavailable("The database went away.")

    monkeypatch.setattr(exporting, "_write", fail)
    with pytest.raises(Unavailable):
        await exported(world, database, mine, tmp_path / "out")

    [entry] = [row for row in (await world.rows())["audit_log"] if row["action"] == "tenant.export"]
    assert (entry["tenant_id"], entry["object_id"]) == (PLATFORM, mine)
    assert json.loads(entry["detail"]) == {"operator": "tester"}


async def test_what_is_there_is_not_written_over(world: World, database: Database, tmp_path: Path) -> None:
    mine = await world.plant("mine")
    with pytest.raises(Conflict):
        await exported(world, database, mine, tmp_path)


async def test_a_tenant_that_is_not_there_leaves_no_file(world: World, database: Database, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await exported(world, database, "ten_01M8D5EXMZNVKZ64S2EJJ18BFF", tmp_path / "out")
    assert not left_in(tmp_path)
