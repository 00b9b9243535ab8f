"""SQLite's WAL is folded back into the file while others write, and stays short."""

import asyncio
import sqlite3

import pytest
import sqlalchemy as sa

from kgents.store.checkpoint import GROUPS, MAX_PAGES
from kgents.store.engine import Scope, open_store
from kgents.store.migrate import migrate
from kgents.store.outbox import NewRow, add_many
from tests.support.waiting import eventually

PAGE = 4096


@pytest.fixture
def file(tmp_path):
    made = tmp_path / "kgents.db"
    migrate(f"sqlite:///{made}")
    return made


@pytest.fixture
async def store(file):
    opened = open_store(f"sqlite:///{file}")
    yield opened
    await opened.close()


async def write(store, times, size=10):
    """Commit so many groups, each of a row of so many bytes."""
    row = NewRow(tenant_id="ten_a", topic="usage", message_id="m", payload="x" * size, created_at=1)
    for _ in range(times):
        await store.write(Scope.system(), lambda connection: add_many(connection, [row]))


def in_file_alone(file):
    """The rows of the outbox that are in the file itself, without its WAL."""
    connection = sqlite3.connect(f"file:{file}?immutable=1", uri=True)
    try:
        return connection.execute("SELECT count(*) FROM outbox").fetchone()[0]
    finally:
        connection.close()


async def test_what_was_written_comes_into_the_file_while_the_store_is_open(store, file):
    await write(store, GROUPS - 1)
    assert in_file_alone(file) == 0
    await write(store, 1)
    await eventually(lambda: in_file_alone(file) == GROUPS, what="the WAL has been folded back")


async def test_the_wal_stays_short_while_several_write_without_a_pause(store, file):
    pages_a_row = 10
    await asyncio.gather(*(write(store, MAX_PAGES // pages_a_row, pages_a_row * PAGE) for _ in range(4)))
    assert file.with_name("kgents.db-wal").stat().st_size < 2 * MAX_PAGES * PAGE
    count = sa.text("SELECT count(*) FROM outbox")
    found = await store.read(Scope.system(), lambda connection: connection.execute(count).scalar_one())
    assert found == 4 * (MAX_PAGES // pages_a_row)


async def test_a_reader_that_does_not_end_delays_it_and_nobody_else(store, file):
    reader = sqlite3.connect(file)
    try:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM outbox").fetchone()[0] == 0
        await write(store, 2 * GROUPS)
        assert reader.execute("SELECT count(*) FROM outbox").fetchone()[0] == 0
    finally:
        reader.close()
    await write(store, GROUPS)
    await eventually(lambda: in_file_alone(file) == 3 * GROUPS, what="the WAL has been folded back")


async def test_the_writer_undoes_a_statement_without_a_file(store):
    ask = "PRAGMA temp_store"
    kept = await store.write(Scope.system(), lambda connection: connection.exec_driver_sql(ask).scalar())
    assert kept == 2, "2 is memory (https://www.sqlite.org/pragma.html#pragma_temp_store)"
