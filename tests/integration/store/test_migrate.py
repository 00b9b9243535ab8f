"""Migrations: from nothing to this version's tables, at once or not at all."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from kgents.errors import Conflict, Unavailable, Unprocessable
from kgents.store.engine import Scope, open_store
from kgents.store.migrate import HEAD, check_current, current, migrate
from kgents.store.tables import metadata
from tests.support.ports import free_port

KEPT = "UPDATE alembic_version SET version_num = '9999'"
BREAKING = (KEPT, "UPDATE schema_support SET oldest = '9999'")
"""What the migration of a newer version leaves: one that this version can work with, and one that it can't."""


@dataclass
class Unmigrated:
    """An empty database: the owner's URL and the application's."""

    owner_url: str
    url: str
    path: Path | None = None


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def empty(request, tmp_path):
    if request.param == "sqlite":
        path = tmp_path / "folder" / "kgents.db"
        yield Unmigrated(f"sqlite:///{path}", f"sqlite:///{path}", path)
        return
    server = request.getfixturevalue("postgres")
    name = server.create_empty_database()
    yield Unmigrated(server.owner_url(name), server.app_url(name))
    server.drop_database(name)


async def look(database, fn):
    """What `fn` says of the database, as the owner sees it."""
    store = open_store(database.owner_url)
    try:
        return await store.read(Scope.system(), fn)
    finally:
        await store.close()


async def change(database, *statements):
    """Do something to the database as its owner."""
    store = open_store(database.owner_url)
    try:
        await store.write(Scope.system(), lambda c: [c.exec_driver_sql(statement) for statement in statements])
    finally:
        await store.close()


def tables(connection):
    return sorted(sa.inspect(connection).get_table_names())


# Migrations run in a thread of their own, since migrate() has an event loop of its own.
def migrate_aside(url):
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(migrate, url).result()


async def test_an_empty_database_gets_every_revision_once(empty):
    assert migrate_aside(empty.owner_url) == [HEAD]
    assert migrate_aside(empty.owner_url) == []
    assert await look(empty, current) == HEAD


async def test_the_tables_are_those_of_the_code(empty):
    migrate_aside(empty.owner_url)

    def differences(connection):
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)

    assert await look(empty, differences) == []


CONSTRAINTS = """
SELECT conrelid::regclass::text || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default)
FROM information_schema.columns WHERE table_schema = 'public'
"""


async def test_the_definitions_are_those_of_the_code_to_the_letter(empty, request):
    """What Alembic does not compare: checks, the conditions of indexes, defaults, AUTOINCREMENT."""
    migrate_aside(empty.owner_url)
    if empty.path:
        other = Unmigrated(f"sqlite:///{empty.path}.made", "")
        query = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"
    else:
        other = Unmigrated(request.getfixturevalue("postgres").owner_url(postgres_database(request)), "")
        query = CONSTRAINTS
    store = open_store(other.owner_url)
    await store.write(Scope.system(), metadata.create_all)
    await store.close()

    def definitions(connection):
        found = {" ".join(text.split()) for text in connection.execute(sa.text(query)).scalars()}
        return {text for text in found if "alembic_version" not in text}

    migrated, made = await look(empty, definitions), await look(other, definitions)
    assert sorted(normalized(migrated)) == sorted(normalized(made))


def postgres_database(request):
    server = request.getfixturevalue("postgres")
    name = server.create_empty_database()
    request.addfinalizer(lambda: server.drop_database(name))
    return name


def normalized(definitions):
    """A table's parts in one order, since their order is not the same and means nothing."""
    for text in definitions:
        yield tuple(sorted(part.strip(" )(") for part in text.split(",")))


async def test_two_migrations_at_once_apply_each_revision_once(empty):
    with ThreadPoolExecutor(2) as threads:
        applied = sorted(threads.map(migrate, [empty.owner_url] * 2))
    assert applied == [[], [HEAD]]


async def test_a_migration_that_fails_changes_nothing(empty):
    if empty.path:
        empty.path.parent.mkdir()
    await change(empty, "CREATE TABLE sessions (mine integer)")  # the last table that the migration makes
    with pytest.raises(Conflict) as raised:
        migrate_aside(empty.owner_url)
    assert raised.value.code == "migration-refused"
    assert "sessions" in raised.value.detail
    assert await look(empty, tables) == ["sessions"]


async def test_a_database_of_a_newer_version_is_left_alone(empty):
    migrate_aside(empty.owner_url)
    await change(empty, *BREAKING, "DROP TABLE quotas")
    before = await look(empty, tables)
    bytes_before = empty.path.read_bytes() if empty.path else b""
    with pytest.raises(Conflict) as raised:
        migrate_aside(empty.owner_url)
    assert raised.value.code == "database-newer"
    assert "9999" in raised.value.detail
    assert await look(empty, tables) == before
    assert (empty.path.read_bytes() if empty.path else b"") == bytes_before


async def test_serving_needs_a_migrated_database(empty):
    if empty.path:
        empty.path.parent.mkdir()
    store = open_store(empty.url)
    try:
        with pytest.raises(Conflict, match="kgents migrate"):
            await check_current(store)
        migrate_aside(empty.owner_url)
        await check_current(store)
    finally:
        await store.close()


async def test_serving_refuses_a_database_of_a_newer_version(empty):
    migrate_aside(empty.owner_url)
    await change(empty, *BREAKING)
    store = open_store(empty.url)
    try:
        with pytest.raises(Conflict) as raised:
            await check_current(store)
    finally:
        await store.close()
    assert raised.value.code == "database-newer"


async def test_a_database_of_a_newer_version_that_keeps_to_this_one_is_served(empty):
    """A rolling update: pods of this version start, and are migrated, after the next version's migration."""
    migrate_aside(empty.owner_url)
    await change(empty, KEPT)
    assert migrate_aside(empty.owner_url) == []
    store = open_store(empty.url)
    try:
        await check_current(store)
    finally:
        await store.close()
    assert await look(empty, current) == "9999"


@pytest.mark.parametrize("url", ["", "sqlite://", "postgresql://u:hush@h:port/d"])
def test_a_url_that_names_no_database_is_refused(url):
    with pytest.raises(Unprocessable):
        migrate(url)


def test_a_file_that_is_no_database_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, and they are longer than the header of a database file " * 20)
    before = path.read_bytes()
    with pytest.raises(Unavailable, match="not a database"):
        migrate(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_server_that_is_away_is_one_clear_error():
    with pytest.raises(Unavailable) as raised:
        migrate(f"postgresql://owner:hush@127.0.0.1:{free_port()}/kgents")
    assert "Connect call failed" in raised.value.detail
    assert "hush" not in raised.value.detail


def test_a_wrong_password_is_one_clear_error(postgres):
    url = postgres.owner_url("postgres").replace("kgents_owner:", "kgents_owner:wrong")
    with pytest.raises(Unavailable, match="password authentication failed") as raised:
        migrate(url)
    assert "wrong" not in raised.value.detail


def test_a_database_that_is_up_to_date_costs_no_import_of_alembic(database):
    code = "import sys; from kgents.store.migrate import migrate; print(migrate(sys.argv[1]), 'alembic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, database.owner_url], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "False"]


class TestTheApplicationsRole:
    """On a cluster where kgents_app isn't there yet."""

    @pytest.fixture
    def name(self, postgres):
        postgres.sql(["ALTER ROLE kgents_app RENAME TO elsewhere"])
        name = postgres.create_empty_database()
        yield name
        postgres.drop_database(name)
        postgres.sql(
            [
                "DROP ROLE IF EXISTS kgents_app",
                "ALTER ROLE elsewhere RENAME TO kgents_app",
                "ALTER ROLE kgents_owner NOCREATEROLE",
            ]
        )

    def test_is_made_by_a_role_that_may(self, postgres, name):
        postgres.sql(["ALTER ROLE kgents_owner CREATEROLE"])
        migrate(postgres.owner_url(name))
        facts = "rolcanlogin, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb"
        (made,) = postgres.sql([f"SELECT {facts} FROM pg_roles WHERE rolname = 'kgents_app'"])[0]
        assert not any(made.values())

    def test_is_asked_for_by_a_role_that_may_not(self, postgres, name):
        with pytest.raises(Conflict, match="CREATE ROLE kgents_app NOLOGIN"):
            migrate(postgres.owner_url(name))
        tables = "SELECT count(*) AS n FROM pg_tables WHERE schemaname = 'public'"
        assert postgres.sql([tables], name)[0][0]["n"] == 0
