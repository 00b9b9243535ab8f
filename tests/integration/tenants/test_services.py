"""Tenants, keys and the audit log on both databases."""

from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from kgents.clock import SECOND
from kgents.errors import Conflict, Forbidden, KgentsError, NotFound, Unprocessable
from kgents.store.engine import Scope
from kgents.store.tables import api_keys, audit_log, cache_changes
from kgents.tenants import keys
from kgents.tenants.audit import AuditService
from kgents.tenants.model import DEVELOPER, OWNER, PLATFORM, PLATFORM_ADMIN, SCOPES, SYSTEM, Actor, TenantUpdate
from kgents.tenants.service import KeyService, TenantService

PEPPERS = keys.parse_peppers("v1:" + "11" * 32)
ACTOR = Actor("actorkey00000000", "192.0.2.7", "req_1")
NO_TENANT = "ten_01ARZ3NDEKTSV4RRFFQ69G5FAV"


@dataclass
class World:
    """The services over a store, each call in a transaction of its own, as the edge does it."""

    store: object
    clock: object
    tenants: TenantService
    keys: KeyService
    audit: AuditService

    async def admin(self, method, *args, **kwargs):
        """As a platform administrator."""
        return await self.store.write(Scope.system(), lambda c: method(c, *args, **kwargs))

    async def as_tenant(self, tenant_id, method, *args, **kwargs):
        """As one tenant."""
        return await self.store.write(Scope.tenant(tenant_id), lambda c: method(c, tenant_id, *args, **kwargs))

    async def tenant(self, name="acme", **fields):
        return await self.admin(self.tenants.create, TenantUpdate(name=name, **fields), ACTOR)

    async def key(self, tenant_id, role="owner", **fields):
        values = {"name": "k", "role": role, "granting": OWNER, "actor": ACTOR, **fields}
        return await self.as_tenant(tenant_id, self.keys.create, **values)

    async def rotate(self, tenant_id, key_id, overlap_seconds=60, granting=OWNER, until=None):
        return await self.as_tenant(
            tenant_id,
            self.keys.rotate,
            key_id,
            overlap_seconds=overlap_seconds,
            granting=granting,
            until=until,
            actor=ACTOR,
        )

    async def revoke(self, tenant_id, key_id, granting=OWNER, actor=ACTOR):
        return await self.as_tenant(tenant_id, self.keys.revoke, key_id, granting=granting, actor=actor)

    async def update(self, tenant_id, **fields):
        return await self.admin(self.tenants.update, tenant_id, TenantUpdate(**fields), ACTOR)

    async def rows(self, table):
        return await self.store.read(Scope.system(), lambda c: c.execute(sa.select(table)).mappings().all())


@pytest.fixture
async def world(store, clock):
    return World(store, clock, TenantService(clock), KeyService(clock, PEPPERS), AuditService(clock))


async def test_a_tenant_is_what_it_was_created_as(world):
    made = await world.tenant(requests_per_minute=5, tokens_per_minute=6, quotas={"runs": 7, "tool_calls": 0})

    found = await world.admin(world.tenants.get, made.tenant_id)

    assert found == made
    assert (found.status, found.requests_per_minute, found.tokens_per_minute) == ("active", 5, 6)
    assert found.quotas == {"runs": 7, "tool_calls": 0}


async def test_two_tenants_cannot_have_one_name(world):
    await world.tenant("acme")

    with pytest.raises(Conflict):
        await world.tenant("acme")


async def test_a_refused_tenant_leaves_no_row(world):
    with pytest.raises(Unprocessable):
        await world.tenant("acme", quotas={"runs": 1, "walks": 1})

    assert await world.rows(audit_log) == []
    assert (await world.admin(world.tenants.list)).items == []


async def test_a_tenant_needs_a_name(world):
    with pytest.raises(Unprocessable):
        await world.admin(world.tenants.create, TenantUpdate(), ACTOR)


@pytest.mark.parametrize("tenant_id", [NO_TENANT, "", "x\0", "kg_0123456789abcdef_canarycanary", "ten_\ud800"])
async def test_a_tenant_that_is_not_there_is_not_found(world, tenant_id):
    with pytest.raises(NotFound) as caught:
        await world.admin(world.tenants.get, tenant_id)

    assert "canary" not in caught.value.detail


async def test_tenants_are_listed_in_pages(world):
    made = sorted([(await world.tenant(f"t{number}")).tenant_id for number in range(5)])

    first = await world.admin(world.tenants.list, limit=3)
    second = await world.admin(world.tenants.list, after=first.items[-1].tenant_id, limit=3)

    assert [tenant.tenant_id for tenant in first.items + second.items] == made
    assert (first.has_more, second.has_more) == (True, False)


async def test_an_update_changes_what_it_names_only(world):
    made = await world.tenant(requests_per_minute=5, quotas={"runs": 7})
    world.clock.advance(1)

    await world.update(made.tenant_id, tokens_per_minute=9, quotas={"tool_calls": 1})

    found = await world.admin(world.tenants.get, made.tenant_id)
    assert (found.name, found.requests_per_minute, found.tokens_per_minute) == ("acme", 5, 9)
    assert found.quotas == {"runs": 7, "tool_calls": 1}
    assert (found.created_at, found.updated_at) == (made.created_at, made.created_at + SECOND)


async def test_rates_and_quotas_can_be_removed(world):
    made = await world.tenant(requests_per_minute=5, quotas={"runs": 7, "tool_calls": 0})

    await world.update(made.tenant_id, requests_per_minute=None, quotas={"runs": None, "input_tokens": None})

    found = await world.admin(world.tenants.get, made.tenant_id)
    assert (found.requests_per_minute, found.quotas) == (None, {"tool_calls": 0})


async def test_a_tenant_cannot_take_anothers_name(world):
    await world.tenant("acme")
    other = await world.tenant("other")

    with pytest.raises(Conflict):
        await world.update(other.tenant_id, name="acme")


async def test_a_deleted_tenant_stays_deleted(world):
    made = await world.tenant()
    await world.update(made.tenant_id, status="deleted")

    with pytest.raises(Conflict):
        await world.update(made.tenant_id, status="active")
    with pytest.raises(Conflict):
        await world.key(made.tenant_id)


async def test_an_update_that_changes_nothing_is_not_logged(world):
    made = await world.tenant(quotas={"runs": 7})
    before = await world.rows(audit_log)

    await world.update(made.tenant_id, name="acme", status="active", quotas={"runs": 7, "tool_calls": None})

    assert await world.rows(audit_log) == before


async def test_the_platforms_tenant_is_made_once(world):
    first = await world.admin(world.tenants.ensure_platform, SYSTEM)
    second = await world.admin(world.tenants.ensure_platform, SYSTEM)

    assert first == second
    assert first.tenant_id == PLATFORM
    assert len(await world.rows(audit_log)) == 1


@pytest.mark.parametrize("fields", [{"status": "suspended"}, {"status": "deleted"}, {"name": "mine"}])
async def test_the_platforms_tenant_cannot_be_locked_out(world, fields):
    await world.admin(world.tenants.ensure_platform, SYSTEM)

    with pytest.raises(Conflict):
        await world.update(PLATFORM, **fields)


async def test_the_first_tenant_is_made_once(world):
    first = await world.admin(world.tenants.ensure, "default", SYSTEM)
    second = await world.admin(world.tenants.ensure, "default", SYSTEM)

    assert first == second
    assert len(await world.rows(audit_log)) == 1


async def test_a_key_is_what_it_was_created_as(world):
    tenant = await world.tenant()
    issued = await world.key(tenant.tenant_id, role="viewer", name="mine", expires_at=world.clock.now() + SECOND)

    found = await world.as_tenant(tenant.tenant_id, world.keys.get, issued.key.key_id)

    assert found == issued.key
    assert issued.token[keys.ID] == found.key_id


async def test_only_the_hash_of_a_key_is_stored(world):
    tenant = await world.tenant()
    issued = await world.key(tenant.tenant_id)
    await world.rotate(tenant.tenant_id, issued.key.key_id)

    stored = repr([await world.rows(table) for table in (api_keys, audit_log, cache_changes)])

    assert issued.token[20:63] not in stored


async def test_a_key_cannot_grant_what_it_lacks(world):
    tenant = await world.tenant()

    with pytest.raises(Forbidden):
        await world.key(tenant.tenant_id, role="owner", granting=DEVELOPER | {"keys:write"})


async def test_a_tenants_key_cannot_administer_the_platform(world):
    tenant = await world.tenant()

    with pytest.raises(Forbidden):
        await world.key(tenant.tenant_id, role=None, scopes=[PLATFORM_ADMIN], granting=SCOPES)


async def test_a_key_needs_a_tenant(world):
    with pytest.raises(NotFound):
        await world.key(NO_TENANT)


async def test_keys_are_listed_in_pages_in_the_order_of_creation(world):
    tenant, other = await world.tenant(), await world.tenant("other")
    made = []
    for _ in range(5):
        made.append((await world.key(tenant.tenant_id)).key.key_id)
        await world.key(other.tenant_id)
        world.clock.advance(0.001)

    first = await world.as_tenant(tenant.tenant_id, world.keys.list, limit=3)
    second = await world.as_tenant(tenant.tenant_id, world.keys.list, after=first.items[-1].key_id, limit=3)

    assert [key.key_id for key in first.items + second.items] == made
    assert (first.has_more, second.has_more) == (True, False)


async def test_a_rotated_key_is_followed_by_one_like_it(world):
    tenant = await world.tenant()
    old = await world.key(tenant.tenant_id, role="viewer", name="mine")

    new = await world.rotate(tenant.tenant_id, old.key.key_id)

    assert (new.key.name, new.key.scopes, new.key.expires_at) == ("mine", old.key.scopes, None)
    assert new.key.rotated_from == old.key.key_id
    assert new.token != old.token


async def test_a_rotated_key_ends_after_the_overlap(world):
    tenant = await world.tenant()
    old = await world.key(tenant.tenant_id)

    await world.rotate(tenant.tenant_id, old.key.key_id, overlap_seconds=60)

    found = await world.as_tenant(tenant.tenant_id, world.keys.get, old.key.key_id)
    assert found.expires_at == world.clock.now() + 60 * SECOND


async def test_an_overlap_never_prolongs_a_key(world):
    tenant = await world.tenant()
    ends = world.clock.now() + 10 * SECOND
    old = await world.key(tenant.tenant_id, expires_at=ends)

    await world.rotate(tenant.tenant_id, old.key.key_id, overlap_seconds=60)

    assert (await world.as_tenant(tenant.tenant_id, world.keys.get, old.key.key_id)).expires_at == ends


async def test_a_successor_lasts_as_long_as_the_key_did(world):
    tenant = await world.tenant()
    old = await world.key(tenant.tenant_id, expires_at=world.clock.now() + 100 * SECOND)
    world.clock.advance(90)

    new = await world.rotate(tenant.tenant_id, old.key.key_id)

    assert new.key.expires_at == world.clock.now() + 100 * SECOND


async def test_a_rotated_key_names_its_successor(world):
    tenant = await world.tenant()
    old = await world.key(tenant.tenant_id)
    new = await world.rotate(tenant.tenant_id, old.key.key_id)

    with pytest.raises(Conflict) as caught:
        await world.rotate(tenant.tenant_id, old.key.key_id)

    assert caught.value.extra["successor"] == new.key.key_id


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_a_key_that_has_ended_cannot_be_rotated(world, how):
    tenant = await world.tenant()
    issued = await world.key(tenant.tenant_id, expires_at=world.clock.now() + SECOND)
    if how == "revoked":
        await world.revoke(tenant.tenant_id, issued.key.key_id)
    else:
        world.clock.advance(1)

    with pytest.raises(Conflict, match=how):
        await world.rotate(tenant.tenant_id, issued.key.key_id)


async def test_rotating_a_stronger_key_is_forbidden(world):
    tenant = await world.tenant()
    issued = await world.key(tenant.tenant_id, role="owner")

    with pytest.raises(Forbidden):
        await world.rotate(tenant.tenant_id, issued.key.key_id, granting=frozenset({"keys:write"}))


async def test_a_key_expires_with_the_key_that_made_it_at_the_latest(world):
    tenant = await world.tenant()
    until = world.clock.now() + 60 * SECOND

    made = [await world.key(tenant.tenant_id, expires_at=at, until=until) for at in (None, until, until - SECOND)]

    assert [issued.key.expires_at for issued in made] == [until, until, until - SECOND]


async def test_a_key_makes_none_that_outlives_it(world):
    tenant = await world.tenant()
    until = world.clock.now() + 60 * SECOND

    with pytest.raises(Forbidden, match="outlives"):
        await world.key(tenant.tenant_id, expires_at=until + 1, until=until)


async def test_an_administrators_expiring_key_makes_keys_that_last(world):
    tenant = await world.tenant()

    issued = await world.key(tenant.tenant_id, granting=SCOPES, until=world.clock.now() + SECOND)

    assert issued.key.expires_at is None


async def test_a_key_that_rotates_itself_gains_no_time(world):
    tenant = await world.tenant()
    ends = world.clock.now() + 60 * SECOND
    old = await world.key(tenant.tenant_id, expires_at=ends)
    world.clock.advance(50)

    new = await world.rotate(tenant.tenant_id, old.key.key_id, until=ends)

    assert new.key.expires_at == ends


@pytest.mark.parametrize("lasts", [None, 61 * SECOND])
async def test_a_key_cannot_rotate_one_that_outlives_it(world, lasts):
    tenant = await world.tenant()
    now = world.clock.now()
    old = await world.key(tenant.tenant_id, expires_at=lasts and now + lasts)

    with pytest.raises(Forbidden, match="outlives"):
        await world.rotate(tenant.tenant_id, old.key.key_id, until=now + 60 * SECOND)


async def test_revoking_a_stronger_key_is_forbidden(world):
    tenant = await world.tenant()
    issued = await world.key(tenant.tenant_id, role="owner")

    with pytest.raises(Forbidden, match="revoke"):
        await world.revoke(tenant.tenant_id, issued.key.key_id, granting=frozenset({"keys:write"}))


async def test_a_key_may_always_revoke_itself(world):
    tenant = await world.tenant()
    key_id = (await world.key(tenant.tenant_id)).key.key_id

    ended = await world.revoke(tenant.tenant_id, key_id, granting=frozenset(), actor=Actor(key_id, "", ""))

    assert ended.status(world.clock.now()) == "revoked"


async def test_revoking_twice_is_once(world):
    tenant = await world.tenant()
    issued = await world.key(tenant.tenant_id)
    first = await world.revoke(tenant.tenant_id, issued.key.key_id)
    world.clock.advance(1)
    logged = len(await world.rows(audit_log))

    second = await world.revoke(tenant.tenant_id, issued.key.key_id)

    assert second == first
    assert len(await world.rows(audit_log)) == logged


@pytest.mark.parametrize("key_id", ["", "x\0", "0" * 16, "\ud800" * 16, "kg_0123456789abcdef_canarycanary"])
async def test_a_key_that_is_not_there_is_not_found(world, key_id):
    tenant = await world.tenant()

    with pytest.raises(NotFound) as caught:
        await world.as_tenant(tenant.tenant_id, world.keys.get, key_id)

    assert "canary" not in caught.value.detail


@pytest.mark.parametrize(
    "operation",
    [
        lambda world, *ids: world.as_tenant(ids[0], world.keys.get, ids[1]),
        lambda world, *ids: world.rotate(*ids),
        lambda world, *ids: world.revoke(ids[0], ids[1]),
    ],
    ids=["get", "rotate", "revoke"],
)
async def test_another_tenants_key_is_not_found(world, operation):
    mine, theirs = await world.tenant("mine"), await world.tenant("theirs")
    key_id = (await world.key(theirs.tenant_id)).key.key_id

    with pytest.raises(NotFound):
        await operation(world, mine.tenant_id, key_id)

    assert (await world.as_tenant(theirs.tenant_id, world.keys.get, key_id)).status(world.clock.now()) == "active"


async def _create_tenant(world):
    tenant = await world.tenant()
    return tenant.tenant_id, tenant.tenant_id, {("tenant", tenant.tenant_id)}


async def _update_tenant(world):
    tenant_id = (await world.tenant()).tenant_id
    await world.update(tenant_id, status="suspended", quotas={"runs": 1})
    return tenant_id, tenant_id, {("tenant", tenant_id)}


async def _ensure_platform(world):
    await world.admin(world.tenants.ensure_platform, ACTOR)
    return PLATFORM, PLATFORM, {("tenant", PLATFORM)}


async def _ensure_tenant(world):
    tenant_id = (await world.admin(world.tenants.ensure, "first", ACTOR)).tenant_id
    return tenant_id, tenant_id, {("tenant", tenant_id)}


async def _create_key(world):
    tenant_id = (await world.tenant()).tenant_id
    key_id = (await world.key(tenant_id)).key.key_id
    return tenant_id, key_id, {("api_key", key_id)}


async def _rotate_key(world):
    tenant_id = (await world.tenant()).tenant_id
    old = (await world.key(tenant_id)).key.key_id
    new = (await world.rotate(tenant_id, old)).key.key_id
    return tenant_id, old, {("api_key", old), ("api_key", new)}


async def _revoke_key(world):
    tenant_id = (await world.tenant()).tenant_id
    key_id = (await world.key(tenant_id)).key.key_id
    await world.revoke(tenant_id, key_id)
    return tenant_id, key_id, {("api_key", key_id)}


CHANGES = [
    ("tenant.create", _create_tenant),
    ("tenant.update", _update_tenant),
    ("tenant.create", _ensure_platform),
    ("tenant.create", _ensure_tenant),
    ("api_key.create", _create_key),
    ("api_key.rotate", _rotate_key),
    ("api_key.revoke", _revoke_key),
]


@pytest.mark.parametrize(("action", "change"), CHANGES)
async def test_every_change_is_in_the_audit_log(world, action, change):
    tenant_id, object_id, _ = await change(world)

    entries = (await world.as_tenant(tenant_id, world.audit.list)).items

    entry = next(entry for entry in entries if entry.action == action)
    assert (entry.tenant_id, entry.object_id) == (tenant_id, object_id)
    assert (entry.actor, entry.source_ip, entry.request_id) == (ACTOR.key_id, ACTOR.source_ip, ACTOR.request_id)
    assert entry.object_type == action.partition(".")[0]
    assert entry.created_at == world.clock.now()
    assert entry.detail


@pytest.mark.parametrize(("action", "change"), CHANGES)
async def test_every_change_is_announced_to_other_processes(world, action, change):
    tenant_id, _, announced = await change(world)

    rows = await world.rows(cache_changes)

    assert announced <= {(row["kind"], row["ref"]) for row in rows}
    assert {row["tenant_id"] for row in rows} == {tenant_id}


async def test_an_update_is_logged_with_what_it_changed(world):
    tenant = await world.tenant(quotas={"runs": 7})
    await world.update(tenant.tenant_id, requests_per_minute=5, quotas={"runs": None})

    entries = (await world.as_tenant(tenant.tenant_id, world.audit.list)).items

    detail = next(entry.detail for entry in entries if entry.action == "tenant.update")
    assert detail == {"requests_per_minute": {"from": None, "to": 5}, "quotas": {"from": {"runs": 7}, "to": {}}}


async def test_a_change_that_is_rolled_back_is_not_in_the_audit_log(world):
    tenant = await world.tenant()
    before = [await world.rows(table) for table in (api_keys, audit_log, cache_changes)]

    def fail(connection):
        world.keys.create(connection, tenant.tenant_id, name="k", role="viewer", granting=OWNER, actor=ACTOR)
        raise KgentsError("the edge fails")

    with pytest.raises(KgentsError):
        await world.store.write(Scope.tenant(tenant.tenant_id), fail)

    assert [await world.rows(table) for table in (api_keys, audit_log, cache_changes)] == before


async def test_the_audit_log_is_listed_newest_first_in_pages(world):
    tenant, other = await world.tenant(), await world.tenant("other")
    await world.key(other.tenant_id)
    for _ in range(4):
        await world.key(tenant.tenant_id)

    first = await world.as_tenant(tenant.tenant_id, world.audit.list, limit=3)
    second = await world.as_tenant(tenant.tenant_id, world.audit.list, after=first.items[-1].audit_id, limit=3)

    ids = [entry.audit_id for entry in first.items + second.items]
    assert ids == sorted(ids, reverse=True)
    assert (len(ids), first.has_more, second.has_more) == (5, True, False)
