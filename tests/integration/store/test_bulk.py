"""Statements for many rows at once do what they would do row by row."""

import pytest
import sqlalchemy as sa

from kgents.errors import Unavailable
from kgents.store.bulk import Lookup, ManyRows, Removal, insert_many, together
from kgents.store.engine import Scope, open_store
from kgents.store.tables import balances, outbox
from kgents.usage.model import Amounts
from kgents.usage.repository import add_to_balances

NAMES = ("tenant_id", "topic", "message_id", "payload", "created_at")
INSERT = insert_many(outbox, NAMES)
UPDATE = ManyRows(
    sa.update(outbox)
    .where(outbox.c.message_id == sa.bindparam("of_id"), outbox.c.tenant_id == sa.bindparam("of_tenant"))
    .values(payload=sa.bindparam("now_payload"), created_at=outbox.c.created_at + sa.bindparam("more")),
    ["of_tenant", "of_id", "now_payload", "more"],
)
LOOKUP = Lookup(
    (outbox.c.message_id, outbox.c.payload, outbox.c.created_at),
    {"tenants": outbox.c.tenant_id, "ids": outbox.c.message_id},
    order_by=[outbox.c.message_id],
    lock=True,
)
BIG = 2**63 - 1
COUNTS = [1, 2, 3, 63, 64, 65, 127, 300]


def rows(count, tenant="ten_a"):
    return [(tenant, "usage", f"m{number:04}", "?", number) for number in range(count)]


async def kept(store):
    columns = (outbox.c.tenant_id, outbox.c.message_id, outbox.c.payload, outbox.c.created_at)
    statement = sa.select(*columns).order_by(outbox.c.seq)
    found = await store.read(Scope.system(), lambda connection: connection.execute(statement).all())
    return [tuple(row) for row in found]


@pytest.mark.parametrize("count", COUNTS)
async def test_rows_are_inserted_in_their_order(store, count):
    await store.write(Scope.system(), lambda connection: INSERT(connection, rows(count)))
    assert [row[1] for row in await kept(store)] == [f"m{number:04}" for number in range(count)]


@pytest.mark.parametrize("count", COUNTS)
async def test_each_row_is_updated_with_its_own_values(store, count):
    def unit(connection):
        INSERT(connection, rows(count) + rows(count, "ten_b"))
        UPDATE(connection, [("ten_a", f"m{number:04}", f"now {number}", 1000 + number) for number in range(count)])

    await store.write(Scope.system(), unit)
    found = await kept(store)
    assert found[:count] == [("ten_a", f"m{n:04}", f"now {n}", 1000 + 2 * n) for n in range(count)]
    assert found[count:] == [("ten_b", f"m{n:04}", "?", n) for n in range(count)]


async def test_an_update_of_what_is_not_there_changes_nothing(store):
    def unit(connection):
        INSERT(connection, rows(2))
        UPDATE(connection, [("ten_b", "m0000", "x", 1), ("ten_a", "other", "x", 1)])

    await store.write(Scope.system(), unit)
    assert [row[2] for row in await kept(store)] == ["?", "?"]


async def test_a_duplicate_is_an_integrity_error(store):
    statement = insert_many(balances)
    row = ("ten_a", "2026-11", *([0] * (len(balances.columns) - 2)))

    with pytest.raises(sa.exc.IntegrityError):
        await store.write(Scope.system(), lambda connection: statement(connection, [row, row]))


@pytest.mark.parametrize("count", COUNTS)
async def test_amounts_are_added_to_new_and_old_balances(store, count):
    keys = [(f"ten_{number:04}", "2026-11") for number in range(count)]

    def unit(connection):
        add_to_balances(connection, {keys[0]: (Amounts(1, 2, 3, 4), Amounts(5, 6, 7, 8))})
        for _ in range(2):
            add_to_balances(connection, {key: (Amounts(1, 1, 1, 1), Amounts(0, 0, 0, -1)) for key in keys})
        return connection.execute(sa.select(balances).order_by(balances.c.tenant_id)).all()

    found = [tuple(row) for row in await store.write(Scope.system(), unit)]
    assert found[0] == (*keys[0], 3, 4, 5, 6, 5, 6, 7, 6)
    assert found[1:] == [(*key, 2, 2, 2, 2, 0, 0, 0, -2) for key in keys[1:]]


async def test_a_lookup_finds_the_rows_of_its_lists_exactly(store):
    text = 'a "quoted" text, \\ and \u20ac\U0001f600\x01\n'

    def unit(connection):
        INSERT(connection, [*rows(3), ("ten_b", "usage", "m0001", "not mine", 7), ("ten_a", "usage", "big", text, BIG)])
        return LOOKUP(connection, tenants=["ten_a"], ids=["m0001", "big", "none"])

    found = await store.write(Scope.system(), unit)
    assert sorted(map(tuple, found)) == [("big", text, BIG), ("m0001", "?", 1)]


async def test_a_lookup_of_nothing_finds_nothing(store):
    assert list(await store.write(Scope.system(), lambda connection: LOOKUP(connection, tenants=[], ids=[]))) == []


@pytest.mark.parametrize("count", COUNTS)
async def test_a_removal_takes_the_rows_of_its_list_only(store, count):
    removal = Removal(sa.delete(outbox), outbox.c.message_id)

    def unit(connection):
        INSERT(connection, rows(count + 1))
        removal(connection, [f"m{number:04}" for number in range(count)])

    await store.write(Scope.system(), unit)
    assert [row[1] for row in await kept(store)] == [f"m{count:04}"]


class TestTogether:
    async def test_all_is_written_that_would_be_written_one_by_one(self, store):
        def unit(connection):
            INSERT(connection, rows(3))
            with together(connection):
                UPDATE(connection, [("ten_a", "m0000", "now", 1), ("ten_a", "m0002", "now", 2)])
                INSERT(connection, rows(2, "ten_b"))
                add_to_balances(connection, {("ten_a", "2026-11"): (Amounts(1, 2, 3, 4), Amounts(5, 6, 7, 8))})
            return connection.execute(sa.select(balances)).all()

        assert [tuple(row)[2:] for row in await store.write(Scope.system(), unit)] == [(1, 2, 3, 4, 5, 6, 7, 8)]
        assert await kept(store) == [
            ("ten_a", "m0000", "now", 1),
            ("ten_a", "m0001", "?", 1),
            ("ten_a", "m0002", "now", 4),
            *(("ten_b", f"m{number:04}", "?", number) for number in range(2)),
        ]

    async def test_the_writes_are_carried_out_in_their_order(self, store):
        statements = [insert_many(outbox, NAMES) for _ in range(4)]

        def unit(connection):
            with together(connection):
                for number, statement in enumerate(statements):
                    statement(connection, [("ten_a", "usage", f"m{number}", "?", 1)])

        await store.write(Scope.system(), unit)
        assert [row[1] for row in await kept(store)] == ["m0", "m1", "m2", "m3"]

    async def test_a_lookup_sees_what_was_written_before_it(self, store):
        def unit(connection):
            with together(connection):
                INSERT(connection, rows(1))
                found = LOOKUP(connection, tenants=["ten_a"], ids=["m0000", "m0001"])
                INSERT(connection, [("ten_a", "usage", "m0001", "?", 1)])
            return found

        assert [row[0] for row in await store.write(Scope.system(), unit)] == ["m0000"]
        assert len(await kept(store)) == 2

    async def test_one_within_another_is_part_of_it(self, store):
        def unit(connection):
            with together(connection):
                with together(connection):
                    INSERT(connection, rows(1))
                INSERT(connection, [("ten_a", "usage", "m0001", "?", 1)])

        await store.write(Scope.system(), unit)
        assert len(await kept(store)) == 2

    async def test_nothing_of_what_failed_is_left_for_the_next(self, store):
        def unit(connection):
            with together(connection):
                INSERT(connection, rows(1))
                raise ArithmeticError

        with pytest.raises(ArithmeticError):
            await store.write(Scope.system(), unit)
        await store.write(Scope.system(), lambda connection: INSERT(connection, rows(1, "ten_b")))
        assert [row[0] for row in await kept(store)] == ["ten_b"]

    async def test_a_duplicate_is_an_integrity_error(self, store):
        statement = insert_many(balances)
        row = ("ten_a", "2026-11", *([0] * (len(balances.columns) - 2)))

        def unit(connection):
            statement(connection, [row])
            with together(connection):
                INSERT(connection, rows(1))
                statement(connection, [row])

        with pytest.raises(sa.exc.IntegrityError):
            await store.write(Scope.system(), unit)
        assert await kept(store) == []

    @pytest.mark.postgres
    async def test_a_connection_that_breaks_is_an_outage(self, postgres):
        store = open_store(postgres.app_url(postgres.create_database()))

        def unit(connection):
            with together(connection):
                INSERT(connection, rows(1))
                connection.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))

        try:
            with pytest.raises(Unavailable):
                await store.write(Scope.system(), unit)
            await store.write(Scope.system(), lambda connection: INSERT(connection, rows(1, "ten_b")))
            assert [row[0] for row in await kept(store)] == ["ten_b"]
        finally:
            await store.close()
