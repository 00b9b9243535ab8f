"""An erasure leaves nothing that anybody wrote, wherever it is cut off, and is repeated after a restore."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from kgents.bus.stored_events import events_of
from kgents.errors import Conflict, NotFound
from kgents.store.engine import Scope, Store
from kgents.tenants.model import PLATFORM
from tests.integration.privacy.conftest import CANARY, World
from tests.support.nats import NatsServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

KEPT = {"usage_events", "usage_hours", "balances", "subscriptions", "invoices", "audit_log", "cache_changes"}
"""Tables in which a tenant that was erased may have rows: of the last, the announcement that its keys ended."""


class Killed(Exception):
    """Stands for the end of the process."""


class Mortal:
    """A store that ends its process right after the n-th write was committed."""

    def __init__(self, store: Store, writes: int) -> None:
        self.dialect = store.dialect
        self.read = store.read
        self._store = store
        self._left = writes

    async def write(self, scope: Scope, fn: Callable[[Connection], Any]) -> Any:
        answer = await self._store.write(scope, fn)
        self._left -= 1
        if self._left == 0:
            raise Killed
        return answer


async def assert_erased(world: World, tenant: str, name: str) -> None:
    rows = await world.rows()
    assert CANARY + name not in repr(rows)
    assert "192.0.2.1" not in repr([row for row in rows["audit_log"] if row["tenant_id"] == tenant])
    assert {table for table, found in rows.items() if any(row.get("tenant_id") == tenant for row in found)} <= KEPT
    for event in rows["usage_events"]:
        if event["tenant_id"] == tenant:
            assert [message async for message in events_of(world.bus, event["run_id"])] == []


async def test_all_that_a_tenant_wrote_is_gone(world: World) -> None:
    gone = await world.plant("one")
    assert repr(await world.rows()).count(f"{CANARY}one") >= 16  # each text column of the tables
    await world.erasure().erase(gone)
    await assert_erased(world, gone, "one")


async def test_its_subscription_ends_and_its_invoices_stay(world: World) -> None:
    gone, other = await world.plant("gone"), await world.plant("other")
    before = await world.rows()
    await world.erasure().erase(gone)
    after = await world.rows()
    ended = {row["tenant_id"]: row["ended_at"] is not None for row in after["subscriptions"]}
    assert ended == {gone: True, other: False}
    assert after["invoices"] == before["invoices"]


async def test_what_was_used_stays_in_the_ledger(world: World) -> None:
    gone = await world.plant("one")
    before = await world.rows()
    await world.erasure().erase(gone)
    after = await world.rows()
    for table in ("usage_events", "usage_hours", "balances"):
        assert after[table] == before[table]


async def test_other_tenants_keep_everything(world: World) -> None:
    gone, other = await world.plant("one"), await world.plant("other")

    def of_other(rows: dict[str, list[dict[str, Any]]]) -> list[Any]:
        return [row for found in rows.values() for row in found if row.get("tenant_id") == other]

    before = await world.rows()
    run = next(row["run_id"] for row in before["runs"] if row["tenant_id"] == other)
    await world.erasure().erase(gone)
    assert of_other(await world.rows()) == of_other(before)
    assert len([message async for message in events_of(world.bus, run)]) == 1


async def test_the_audit_log_tells_who_erased_how_much(world: World) -> None:
    gone = await world.plant("one")
    await world.erasure().erase(gone)
    told = [row for row in (await world.rows())["audit_log"] if row["tenant_id"] == PLATFORM]
    assert [(row["action"], row["object_id"]) for row in told] == [("tenant.erase", gone), ("tenant.erased", gone)]
    assert '"operator":"tester"' in told[1]["detail"]
    assert '"messages":1' in told[1]["detail"]


async def test_a_second_erasure_finds_nothing(world: World) -> None:
    gone = await world.plant("one")
    await world.erasure().erase(gone)
    assert await world.erasure().erase(gone) == {}
    assert len([row for row in (await world.rows())["audit_log"] if row["tenant_id"] == PLATFORM]) == 2


async def test_wherever_it_is_cut_off_the_next_try_ends_it(world: World) -> None:
    gone = await world.plant("one")
    rows = await world.rows()
    for writes in range(1, 100):
        await world.go_back_to(rows)
        try:
            await world.erasure(Mortal(world.store, writes)).erase(gone)  # type: ignore[arg-type]
        except Killed:
            assert gone in {entry.tenant_id for entry in await world.erasure().entries()}
            await world.erasure().erase(gone)
            await assert_erased(world, gone, "one")
        else:
            break
    assert writes > 10


async def test_a_restored_backup_is_erased_again(world: World) -> None:
    gone, other = await world.plant("one"), await world.plant("other")
    backup = await world.rows()
    run = next(row["run_id"] for row in backup["runs"] if row["tenant_id"] == gone)
    await world.erasure().erase(gone)
    await world.go_back_to(backup)
    await world.say(run, f"{CANARY}one")
    assert f"{CANARY}one" in repr(await world.rows())
    erasure = world.erasure()
    assert [entry.tenant_id for entry in await erasure.entries()] == [gone]
    await erasure.erase(gone)
    await assert_erased(world, gone, "one")
    assert f"{CANARY}other" in repr(await world.rows())
    assert other not in {entry.tenant_id for entry in await erasure.entries()}


async def test_events_that_come_back_with_a_copy_of_the_bus_are_erased(world: World) -> None:
    gone = await world.plant("one")
    run = next(row["run_id"] for row in (await world.rows())["runs"] if row["tenant_id"] == gone)
    await world.erasure().erase(gone)
    await world.say(run, f"{CANARY}one")
    assert await world.erasure().erase(gone) == {"run_events": 1}
    await assert_erased(world, gone, "one")


async def test_run_events_are_overwritten_in_the_files_of_the_bus(world: World, nats: NatsServer) -> None:
    gone = await world.plant("one")

    def in_files() -> bool:
        return any(f"{CANARY}one".encode() in path.read_bytes() for path in nats.folder.rglob("*") if path.is_file())

    await eventually(in_files, what="the bus has written its file")
    await world.erasure().erase(gone)
    assert not in_files()


async def test_the_platform_itself_is_not_erased(world: World) -> None:
    with pytest.raises(Conflict):
        await world.erasure().erase(PLATFORM)


async def test_a_tenant_that_never_was_is_not_put_on_the_list(world: World) -> None:
    with pytest.raises(NotFound):
        await world.erasure().erase("ten_01M8D5EXMZNVKZ64S2EJJ18BFF")
    assert await world.erasure().entries() == []
