"""API keys from creation to revocation, over both databases and two processes' authenticators."""

import asyncio

import pytest
import sqlalchemy as sa

from kgents.clock import SECOND, SystemClock
from kgents.errors import Unauthenticated
from kgents.store.changes import ChangeFeed
from kgents.store.engine import Scope
from kgents.store.tables import api_keys
from kgents.tenants import keys
from kgents.tenants.authenticator import Authenticator
from kgents.tenants.model import OWNER, SYSTEM, TenantUpdate
from kgents.tenants.service import KeyService, TenantService
from tests.support.waiting import eventually

PEPPERS = keys.parse_peppers("v1:" + "11" * 32)


class Process:
    """What one process has: an authenticator, and the feed that tells it of changes."""

    def __init__(self, store):
        clock = SystemClock()
        self.feed = ChangeFeed(store, clock)
        self.authenticator = Authenticator(store, clock, PEPPERS, self.feed.fresh)
        self.feed.subscribe(self.authenticator.apply, self.authenticator.clear)
        self._polling = None

    async def start(self):
        await self.feed.poll()
        self._polling = asyncio.create_task(self.feed.run())

    async def stop_feed(self):
        self._polling.cancel()
        await asyncio.gather(self._polling, return_exceptions=True)

    async def accepts(self, token):
        try:
            return self.authenticator.cached(token) or await self.authenticator.authenticate(token)
        except Unauthenticated:
            return None


class Tenancy:
    """A tenant with its services."""

    def __init__(self, store):
        clock = SystemClock()
        self.store = store
        self.tenants = TenantService(clock)
        self.keys = KeyService(clock, PEPPERS)
        self.id = ""

    async def start(self):
        made = await self.store.write(
            Scope.system(), lambda c: self.tenants.create(c, TenantUpdate(name="acme", requests_per_minute=9), SYSTEM)
        )
        self.id = made.tenant_id

    async def issue(self, **fields):
        values = {"name": "k", "role": "owner", "granting": OWNER, "actor": SYSTEM, **fields}
        return await self.write(lambda c: self.keys.create(c, self.id, **values))

    async def revoke(self, key_id):
        await self.write(lambda c: self.keys.revoke(c, self.id, key_id, granting=OWNER, actor=SYSTEM))

    async def update(self, **fields):
        await self.store.write(
            Scope.system(), lambda c: self.tenants.update(c, self.id, TenantUpdate(**fields), SYSTEM)
        )

    async def write(self, fn):
        return await self.store.write(Scope.tenant(self.id), fn)


@pytest.fixture
async def tenancy(store):
    tenancy = Tenancy(store)
    await tenancy.start()
    return tenancy


@pytest.fixture
async def processes(store):
    started = [Process(store), Process(store)]
    for process in started:
        await process.start()
    yield started
    for process in started:
        await process.stop_feed()


async def within_a_second(condition):
    """Whether a condition holds within a second, with a tenth for the test itself."""
    return await eventually(condition, seconds=1.1, what="within a second")


async def refused_everywhere(processes, token):
    return not any([await process.accepts(token) for process in processes])


async def test_a_new_key_works_at_once_in_every_process(processes, tenancy):
    issued = await tenancy.issue()

    principals = [await process.accepts(issued.token) for process in processes]

    assert [principal.key_id for principal in principals] == [issued.key.key_id] * 2
    assert principals[0].tenant_id == tenancy.id
    assert principals[0].scopes == OWNER
    assert principals[0].requests_per_minute == 9


@pytest.mark.parametrize("feeds", ["running", "stuck"])
async def test_a_revoked_key_stops_within_a_second_in_every_process(processes, tenancy, feeds):
    issued = await tenancy.issue()
    assert all([await process.accepts(issued.token) for process in processes])
    if feeds == "stuck":
        for process in processes:
            await process.stop_feed()

    await tenancy.revoke(issued.key.key_id)

    assert await within_a_second(lambda: refused_everywhere(processes, issued.token))


@pytest.mark.parametrize("status", ["suspended", "deleted"])
async def test_a_stopped_tenants_keys_stop_within_a_second(processes, tenancy, status):
    issued = [await tenancy.issue() for _ in range(2)]
    for one in issued:
        assert all([await process.accepts(one.token) for process in processes])

    await tenancy.update(status=status)

    for one in issued:
        assert await within_a_second(lambda token=one.token: refused_everywhere(processes, token))


async def test_a_resumed_tenants_keys_work_again(processes, tenancy):
    issued = await tenancy.issue()
    await tenancy.update(status="suspended")
    assert await within_a_second(lambda: refused_everywhere(processes, issued.token))

    await tenancy.update(status="active")

    assert await within_a_second(lambda: processes[0].accepts(issued.token))


async def test_a_changed_rate_reaches_every_process(processes, tenancy):
    issued = await tenancy.issue()
    assert await processes[0].accepts(issued.token)

    await tenancy.update(requests_per_minute=77)

    async def seen():
        return (await processes[0].accepts(issued.token)).requests_per_minute == 77

    assert await within_a_second(seen)


async def test_a_rotation_refuses_nobody(processes, tenancy):
    current = (await tenancy.issue()).token
    refused, served, done = 0, 0, False

    async def client(process):
        nonlocal refused, served
        while not done:
            accepted = await process.accepts(current)
            served += accepted is not None
            refused += accepted is None
            await asyncio.sleep(0)

    clients = [asyncio.create_task(client(process)) for process in processes for _ in range(3)]
    for _ in range(5):
        key_id = current[keys.ID]
        issued = await tenancy.write(
            lambda c, key_id=key_id: tenancy.keys.rotate(
                c, tenancy.id, key_id, overlap_seconds=60, granting=OWNER, actor=SYSTEM
            )
        )
        await asyncio.sleep(0.1)
        current = issued.token
        await asyncio.sleep(0.1)
    done = True
    await asyncio.gather(*clients)

    assert refused == 0
    assert served > 100


async def test_a_rotation_without_overlap_stops_the_old_key(processes, tenancy):
    issued = await tenancy.issue()
    assert await processes[0].accepts(issued.token)

    await tenancy.write(
        lambda c: tenancy.keys.rotate(c, tenancy.id, issued.key.key_id, overlap_seconds=0, granting=OWNER, actor=SYSTEM)
    )

    assert await within_a_second(lambda: refused_everywhere(processes, issued.token))


async def test_a_key_expires_on_time(processes, tenancy):
    issued = await tenancy.issue(expires_at=SystemClock().now() + SECOND // 2)
    assert await processes[0].accepts(issued.token)

    assert await within_a_second(lambda: refused_everywhere(processes, issued.token))


async def test_a_key_of_another_tenant_is_no_key_of_this_one(processes, tenancy, store):
    other = Tenancy(store)
    made = await store.write(Scope.system(), lambda c: other.tenants.create(c, TenantUpdate(name="other"), SYSTEM))
    other.id = made.tenant_id
    issued = await other.issue()

    assert (await processes[0].accepts(issued.token)).tenant_id == other.id


async def test_the_last_use_is_written(processes, tenancy, store):
    issued = await tenancy.issue()
    before = SystemClock().now()
    await processes[0].accepts(issued.token)

    written = await store.write(Scope.system(), processes[0].authenticator.flush_last_used)

    assert written == 1
    assert await _last_use(store, issued.key.key_id) >= before


async def test_two_processes_write_the_last_use_once_a_minute(processes, tenancy, store):
    issued = await tenancy.issue()
    for process in processes:
        await process.accepts(issued.token)
    await store.write(Scope.system(), processes[0].authenticator.flush_last_used)
    first = await _last_use(store, issued.key.key_id)

    await store.write(Scope.system(), processes[1].authenticator.flush_last_used)

    assert await _last_use(store, issued.key.key_id) == first


async def _last_use(store, key_id):
    query = sa.select(api_keys.c.last_used_at).where(api_keys.c.key_id == key_id)
    return await store.read(Scope.system(), lambda c: c.execute(query).scalar_one())
