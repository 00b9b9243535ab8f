"""Connections to PostgreSQL: none that is dead is used, none keeps a transaction, and no scope is more than its ids."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from kgents.errors import Unavailable
from kgents.store.engine import PostgresStore, Scope, open_store
from kgents.store.outbox import NewRow, add_many
from kgents.store.tables import outbox
from tests.support.postgres import PostgresServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.postgres
TENANT = "ten_a"
ROW = NewRow(tenant_id=TENANT, topic="usage", message_id="m", payload="[]", created_at=1)
END_AT_COMMIT = """
CREATE FUNCTION ends() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql
AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER ends AFTER INSERT ON outbox DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ends()
"""


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    return postgres.create_database()


@pytest.fixture
async def store(postgres: PostgresServer, database: str) -> AsyncIterator[PostgresStore]:
    opened = open_store(postgres.app_url(database))
    assert isinstance(opened, PostgresStore)
    yield opened
    await opened.close()
    postgres.drop_database(database)


def keep(connection: Connection) -> None:
    add_many(connection, [ROW])


def kept(connection: Connection) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(outbox)).scalar_one()


def busy(postgres: PostgresServer, database: str) -> int:
    """The connections with a transaction that is not ended."""
    query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND xact_start IS NOT NULL"
    return int(postgres.sql([query])[0][0][0])


async def several(store: PostgresStore) -> list[int]:
    """What as many transactions at once as there are connections read."""

    def fn(connection: Connection) -> int:
        connection.execute(sa.text("SELECT pg_sleep(0.05)"))
        return kept(connection)

    return await asyncio.gather(*(store.read(Scope.system(), fn) for _ in range(10)))


async def test_connections_that_the_server_has_ended_are_not_used(
    store: PostgresStore, postgres: PostgresServer, database: str
) -> None:
    await several(store)
    postgres.sql([f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"])
    await store.write(Scope.tenant(TENANT), keep)
    assert await several(store) == [1] * 10


@pytest.mark.parametrize("ids", ["ten_b", "", "ten_a'", "' OR true; DROP TABLE outbox; --", "ten_\0", "ten a", "*'"])
async def test_a_scope_of_others_or_of_what_is_no_id_is_empty(store: PostgresStore, ids: str) -> None:
    await store.write(Scope.tenant(TENANT), keep)
    assert await store.read(Scope.tenant(ids), kept) == 0
    assert await store.read(Scope.key(ids), kept) == 0
    assert await store.read(Scope.tenants([TENANT, "ten_b"]), kept) == 1


async def test_the_next_transaction_has_its_own_scope(store: PostgresStore) -> None:
    await store.write(Scope.system(), keep)
    assert [await store.read(scope, kept) for scope in (Scope.system(), Scope.tenant("ten_b"))] == [1, 0]


async def test_what_is_cancelled_is_undone_and_holds_nothing(
    store: PostgresStore, postgres: PostgresServer, database: str
) -> None:
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fn(connection: Connection) -> None:
        keep(connection)
        loop.call_soon(began.set)
        connection.execute(sa.text("SELECT pg_sleep(60)"))

    task = asyncio.create_task(store.write(Scope.tenant(TENANT), fn))
    await began.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await eventually(lambda: busy(postgres, database) == 0)
    assert await store.read(Scope.system(), kept) == 0


async def test_what_raises_is_undone_and_holds_nothing(
    store: PostgresStore, postgres: PostgresServer, database: str
) -> None:
    def fn(connection: Connection) -> None:
        keep(connection)
        raise LookupError

    with pytest.raises(LookupError):
        await store.write(Scope.tenant(TENANT), fn)
    assert busy(postgres, database) == 0
    assert await store.read(Scope.system(), kept) == 0


async def test_a_commit_without_an_answer_may_have_been_carried_out(
    store: PostgresStore, postgres: PostgresServer, database: str
) -> None:
    postgres.sql(END_AT_COMMIT.split(";\n"), database)
    with pytest.raises(Unavailable) as raised:
        await store.write(Scope.tenant(TENANT), keep)
    assert raised.value.code == "outcome-unknown"
    assert await store.read(Scope.system(), kept) == 0


async def test_a_connection_that_ends_before_the_commit_has_done_nothing(store: PostgresStore) -> None:
    def fn(connection: Connection) -> None:
        keep(connection)
        connection.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(Unavailable) as raised:
        await store.write(Scope.tenant(TENANT), fn)
    assert raised.value.code == "store-unavailable"
