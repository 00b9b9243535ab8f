"""Writes that wait at the same moment are committed together, and one that fails fails alone."""

import asyncio
import math

import pytest
import sqlalchemy as sa

from kgents.errors import NotFound, Unavailable
from kgents.store.engine import Scope, open_store
from kgents.store.outbox import NewRow, add_many
from kgents.store.tables import outbox

TENANT = "ten_a"


def row(name, tenant_id=TENANT):
    return NewRow(tenant_id=tenant_id, topic="usage", message_id=name, payload="[]", created_at=1)


class Keep:
    """Keeps a row for each item. It refuses what is called missing, and raises at what is called a bug."""

    def __init__(self):
        self.groups = []

    def tenant_of(self, item):
        if item == "nobody's":
            raise LookupError(item)
        return TENANT

    def apply(self, connection, items):
        self.groups.append(list(items))
        if "bug" in items:
            raise ValueError("a bug")
        add_many(connection, [row(item) for item in items if item != "missing"])
        if "cancelled" in items:
            raise asyncio.CancelledError
        if "refused" in items:
            connection.execute(sa.insert(outbox), {"seq": 1})
        return [NotFound("no") if item == "missing" else item for item in items]


@pytest.fixture
def groups():
    """The sizes of the groups that were committed."""
    return []


@pytest.fixture
async def store(database, groups):
    opened = open_store(database.url, lambda size, seconds: groups.append(size))
    yield opened
    await opened.close()


async def kept(store):
    statement = sa.select(outbox.c.message_id).order_by(outbox.c.seq)
    return await store.read(Scope.system(), lambda connection: connection.execute(statement).scalars().all())


async def submit_all(store, items, op=None):
    op = op or Keep()
    return await asyncio.gather(*(store.submit(op, item) for item in items), return_exceptions=True)


async def test_many_at_once_take_few_transactions(store, groups):
    names = [f"m{number}" for number in range(500)]
    assert await submit_all(store, names) == names
    assert sorted(await kept(store)) == sorted(names)
    assert sum(groups) == 500
    assert len(groups) <= 50


async def test_what_is_answered_is_committed(store, database):
    await store.submit(Keep(), "m")
    other = open_store(database.url)
    try:
        assert await kept(other) == ["m"]
    finally:
        await other.close()


@pytest.mark.parametrize("poison", ["bug", "refused", "cancelled", "nobody's"])
async def test_an_item_that_fails_fails_alone(store, poison):
    names = [f"m{number}" for number in range(40)]
    *others, failed = await submit_all(store, [*names, poison])
    if poison == "nobody's" and store.dialect == "sqlite":
        assert failed == poison  # SQLite has no scopes, so it doesn't ask whose it is
        return
    assert others == names
    assert sorted(await kept(store)) == sorted(names)
    assert isinstance(failed, ValueError | LookupError | RuntimeError | sa.exc.DBAPIError)


@pytest.mark.parametrize("value", ["a NUL \0", 1 << 70, "half a pair \ud800"], ids=["NUL", "number", "surrogate"])
async def test_a_value_that_can_not_be_stored_is_no_outage(store, value):
    class Store(Keep):
        def apply(self, connection, items):
            add_many(connection, [NewRow(TENANT, "usage", "m", *item) for item in items])
            return list(items)

    item = ("[]", value) if isinstance(value, int) else (value, 1)
    results = await submit_all(store, [("[]", 1), item, ("[]", 2)], Store())
    assert (results[0], results[2]) == (("[]", 1), ("[]", 2))
    assert not isinstance(results[1], Unavailable)


async def test_finding_the_item_that_fails_takes_few_transactions(store):
    op = Keep()
    await submit_all(store, [f"m{number}" for number in range(128)] + ["bug"], op)
    # The one before, the whole, and two for each halving until it is alone.
    assert len(op.groups) <= 2 + 2 * math.ceil(math.log2(129))


async def test_an_item_that_is_refused_leaves_the_others(store):
    first, refused, last = await submit_all(store, ["a", "missing", "b"])
    assert (first, last) == ("a", "b")
    assert isinstance(refused, NotFound)
    assert await kept(store) == ["a", "b"]


async def test_it_is_told_that_the_last_group_found_no_room(store):
    class Full(Keep):
        def apply(self, connection, items):
            raise OSError("no space left on the device")

    assert store.failing() is None
    [failed] = await submit_all(store, ["m"], Full())
    assert isinstance(failed, Unavailable)
    assert "no space left" in str(store.failing())
    await submit_all(store, ["m"])
    assert "no space left" in str(store.failing()), "others' success says nothing of it"
    Full.apply = Keep.apply
    await submit_all(store, ["m", "bug"], Full())
    assert store.failing() is None


async def test_what_a_caller_asked_for_is_committed_when_it_goes_away(store):
    future = store.submit(Keep(), "m")
    future.cancel()
    await store.submit(Keep(), "after")
    assert sorted(await kept(store)) == ["after", "m"]


async def test_writes_and_submits_mix(store):
    write = store.write(Scope.tenant(TENANT), lambda connection: add_many(connection, [row("w")]))
    await asyncio.gather(write, store.submit(Keep(), "s"))
    assert sorted(await kept(store)) == ["s", "w"]


@pytest.mark.parametrize("error", [NotFound("no"), ValueError("a bug"), StopIteration()], ids=repr)
async def test_a_write_that_raises_leaves_nothing_and_disturbs_nobody(store, error):
    def fails(connection):
        add_many(connection, [row("w")])
        raise error

    failed, _ = await asyncio.gather(
        store.write(Scope.tenant(TENANT), fails), store.submit(Keep(), "s"), return_exceptions=True
    )
    assert isinstance(failed, type(error) | RuntimeError)
    assert await kept(store) == ["s"]


async def test_a_read_can_not_write(store):
    def write(connection):
        add_many(connection, [row("m")])

    with pytest.raises(sa.exc.DBAPIError):
        await store.read(Scope.tenant(TENANT), write)
    assert await kept(store) == []


async def test_closing_finishes_what_was_accepted(database):
    store = open_store(database.url)
    names = [f"m{number}" for number in range(300)]
    futures = [store.submit(Keep(), name) for name in names]
    await store.close()
    assert [future.result() for future in futures] == names


async def test_a_closed_store_says_that_it_is_shutting_down(database):
    store = open_store(database.url)
    await store.close()
    await store.close()
    for ask in (
        lambda: store.read(Scope.system(), kept),
        lambda: store.write(Scope.system(), kept),
        lambda: store.submit(Keep(), "m"),
    ):
        with pytest.raises(Unavailable) as raised:
            await ask()
        assert raised.value.code == "draining"


@pytest.mark.postgres
async def test_groups_that_lock_each_other_out_are_done_again(postgres):
    database = postgres.create_database()
    store = open_store(postgres.app_url(database))
    lock = sa.text("SELECT payload FROM outbox WHERE message_id = :name FOR UPDATE")
    ready = [asyncio.Event(), asyncio.Event()]
    loop = asyncio.get_running_loop()

    class LockBoth(Keep):
        def apply(self, connection, items):
            self.groups.append(list(items))
            for first, second in items:
                connection.execute(lock, {"name": first})
                loop.call_soon_threadsafe(ready[first == "b"].set)
                connection.execute(sa.text("SELECT pg_sleep(0.3)"))
                connection.execute(lock, {"name": second})
            return list(items)

    op = LockBoth()
    try:
        await store.write(Scope.tenant(TENANT), lambda connection: add_many(connection, [row("a"), row("b")]))
        one = store.submit(op, ("a", "b"))
        await ready[0].wait()
        two = store.submit(op, ("b", "a"))
        assert await asyncio.gather(one, two) == [("a", "b"), ("b", "a")]
        assert len(op.groups) > 2  # or they did not meet, and nothing was shown
    finally:
        await store.close()
        postgres.drop_database(database)


@pytest.mark.postgres
async def test_operations_that_lock_the_same_rows_do_not_lock_each_other_out(postgres):
    database = postgres.create_database()
    store = open_store(postgres.app_url(database))
    names = [f"r{number}" for number in range(10)]
    lock = sa.text("SELECT payload FROM outbox WHERE message_id = :name FOR UPDATE")

    class LockInOrder(Keep):
        def apply(self, connection, items):
            self.groups.append(list(items))
            for name in sorted(set(items)):
                connection.execute(lock, {"name": name})
                connection.execute(sa.text("SELECT pg_sleep(0.002)"))
            return list(items)

    operations = [LockInOrder(), LockInOrder()]

    async def client(number):
        for turn in range(10):
            await asyncio.sleep(0.001 * (number * 7 % 5))  # so that both lanes have something to do
            await store.submit(operations[(number + turn) % 2], names[(number + 3 * turn) % 10])

    try:
        await store.write(Scope.tenant(TENANT), lambda connection: add_many(connection, [row(name) for name in names]))
        await asyncio.gather(*(client(number) for number in range(20)))
        assert sum(len(group) for op in operations for group in op.groups) == 20 * 10  # nothing was done twice
    finally:
        await store.close()
        postgres.drop_database(database)
