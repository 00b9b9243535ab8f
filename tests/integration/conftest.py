"""Fixtures with real processes and files."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kgents.meter.client import MeterClient
from kgents.store.engine import PostgresStore, SqliteStore, open_store
from kgents.store.migrate import migrate
from tests.contract.meter.process import MeterProcess
from tests.support.nats import NatsServer
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer, serve_postgres
from tests.support.redis import RedisServer
from tests.support.redis import find_binary as find_redis
from tests.support.tools import left_out


@dataclass(frozen=True, slots=True)
class Database:
    """A migrated, empty database. `url` is the application's, `owner_url` the one for migrations."""

    dialect: str
    url: str = field(repr=False)
    owner_url: str = field(repr=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The shared PostgreSQL server. A test that stops it must start it again."""
    with serve_postgres(migrate) as server:
        yield server


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "kgents.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database of each kind, migrated and empty."""
    if request.param == "sqlite":
        path = tmp_path / "kgents.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield Database("sqlite", f"sqlite:///{path}", f"sqlite:///{path}")
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.create_database()
    yield Database("postgresql", server.app_url(name), server.owner_url(name))
    server.drop_database(name)


@pytest.fixture
async def store(database: Database) -> AsyncIterator[SqliteStore | PostgresStore]:
    """A store of each kind, migrated and empty."""
    opened = open_store(database.url)
    yield opened
    await opened.close()


@pytest.fixture
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A running nats-server of the test's own."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A running Valkey or Redis server of the test's own."""
    binary = find_redis()
    if binary is None:
        left_out("neither Valkey nor Redis is installed; `apt-get install redis-server` does it")
    server = RedisServer(binary, tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def meter(tmp_path: Path) -> Iterator[MeterProcess]:
    """A meter that the test may break."""
    process = MeterProcess(tmp_path, free_port()).start()
    yield process
    process.stop()


@pytest.fixture
async def client(meter: MeterProcess) -> AsyncIterator[MeterClient]:
    """The product's client of that meter."""
    made = meter.client()
    yield made
    await made.aclose()
