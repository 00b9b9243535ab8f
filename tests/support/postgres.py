"""A real PostgreSQL server for tests: its own cluster in a temporary folder, on a free port of loopback."""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TypeVar

import asyncpg

from tests.support.ports import free_port
from tests.support.process import ServerProcess
from tests.support.tools import left_out
from tests.support.waiting import wait_until

T = TypeVar("T")

SUPERUSER, OWNER, APP = "postgres", "kgents_owner", "kgents_app"
_TEMPLATE = "kgents_template"

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "timezone": "Asia/Kolkata",  # nothing may depend on the server's own zone
}
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def find_binaries() -> Path | None:
    """The folder of `initdb` and `postgres` (15 or newer), or None when PostgreSQL isn't installed."""
    debian = Path("/usr/lib/postgresql")
    versions = sorted((int(path.name), path / "bin") for path in debian.glob("[0-9]*") if path.name.isdigit())
    on_path = shutil.which("initdb")
    candidates = [folder for version, folder in reversed(versions) if version >= 15]
    candidates += [Path(on_path).resolve().parent] if on_path else []
    return next((folder for folder in candidates if (folder / "postgres").exists()), None)


@contextmanager
def serve_postgres(
    migrate: Callable[[str], object], *, durable: bool = False, parent: Path | None = None
) -> Iterator[PostgresServer]:
    """A server for a while; the test is left out where PostgreSQL is not installed."""
    binaries = find_binaries()
    if binaries is None:
        left_out("PostgreSQL 15 or newer is not installed; `apt-get install postgresql` does it")
    server = PostgresServer(binaries, migrate, durable=durable, parent=parent)
    try:
        yield server
    finally:
        server.remove()


class PostgresServer:
    """A cluster with two roles, as in production: one that owns the tables, and one that row-level security binds.

    Neither is a superuser. `migrate` is called once, with the owner's URL of a template; each database that a test
    asks for is a copy of it. `durable` keeps PostgreSQL's own settings for what a power cut leaves; most tests do
    without, since it would only cost them time. `parent` is where its folder is made.
    """

    def __init__(
        self,
        binaries: Path,
        migrate: Callable[[str], object],
        *,
        durable: bool = False,
        parent: Path | None = None,
    ) -> None:
        self.port = free_port()
        self._binaries = binaries
        self._migrate = migrate
        self._settings = _SETTINGS if durable else _SETTINGS | _NOT_DURABLE
        self._passwords = {role: secrets.token_urlsafe(16) for role in (SUPERUSER, OWNER, APP)}
        self._databases = (f"test_{number}" for number in count(1))
        self._migrated = False
        self._process: ServerProcess | None = None
        # PostgreSQL refuses to run as root; then it runs as the user that its package made, or as nobody.
        self._user = _unprivileged_user() if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="kgents-postgres-", dir=parent))
        if self._user:
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        self._make_cluster()

    @property
    def folder(self) -> Path:
        """Its files: `data`, and what it said in `log`."""
        return self._folder

    def owner_url(self, database: str) -> str:
        """As the role that owns the tables: for migrations."""
        return self._url(OWNER, database)

    def app_url(self, database: str) -> str:
        """As the role that serves requests, which cannot bypass row-level security."""
        return self._url(APP, database)

    def environment(self, database: str) -> dict[str, str]:
        """The settings of a kgents on this database."""
        return {
            "KGENTS_DATABASE_URL": self.app_url(database),
            "KGENTS_DATABASE_OWNER_URL": self.owner_url(database),
        }

    def superuser_url(self, database: str) -> str:
        """As the cluster's superuser: to look at what the others may not see."""
        return self._url(SUPERUSER, database)

    def create_database(self) -> str:
        """A new, migrated, empty database; answers its name."""
        if not self._migrated:
            self.sql([f"CREATE DATABASE {_TEMPLATE} OWNER {OWNER}"])
            _in_thread(lambda: self._migrate(self.owner_url(_TEMPLATE)))
            self._migrated = True
        return self._create(f"TEMPLATE {_TEMPLATE}")

    def create_empty_database(self) -> str:
        """A new database without a table, owned by the owner role; answers its name."""
        return self._create("")

    def drop_database(self, database: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.sql([f"DROP DATABASE IF EXISTS {database} WITH (FORCE)"])

    def sql(self, statements: Iterable[str], database: str = "postgres") -> list[list[asyncpg.Record]]:
        """Run statements as the superuser, each on its own; answers their rows. Blocks; callable from async tests."""

        async def run() -> list[list[asyncpg.Record]]:
            connection = await asyncpg.connect(self.superuser_url(database), timeout=10)
            try:
                return [await connection.fetch(statement) for statement in statements]
            finally:
                await connection.close()

        return _in_thread(lambda: asyncio.run(run()))

    @property
    def process(self) -> ServerProcess:
        """The running postmaster, to signal it."""
        if self._process is None:
            raise RuntimeError("this PostgreSQL is stopped")
        return self._process

    def start(self) -> None:
        """Start it, and return once it answers. A test that stops the shared server must start it again."""
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        process = ServerProcess(
            [self._binaries / "postgres", "-D", self._folder / "data", "-p", str(self.port), *settings],
            self._folder / "log",
            user=self._user.pw_uid if self._user else None,
            group=self._user.pw_gid if self._user else None,
            last_will=signal.SIGQUIT,
        )
        self._process = process
        try:
            wait_until(lambda: not process.is_running() or self._is_ready(), seconds=30, what="PostgreSQL is ready")
        except TimeoutError:
            process.stop(signal.SIGQUIT)
        if not process.is_running():
            raise RuntimeError(f"PostgreSQL did not start:\n{process.log}")

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT cuts its clients off and shuts down in order, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.stop(number)
            self._process = None

    def remove(self) -> None:
        """Stop it and delete its files."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _url(self, role: str, database: str) -> str:
        return f"postgresql://{role}:{self._passwords[role]}@127.0.0.1:{self.port}/{database}"

    def _create(self, how: str) -> str:
        database = next(self._databases)
        self.sql([f"CREATE DATABASE {database} OWNER {OWNER} {how}"])
        return database

    def _is_ready(self) -> bool:
        check = [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(check, check=False).returncode == 0

    def _make_cluster(self) -> None:
        password_file = self._folder / "superuser"
        password_file.write_text(self._passwords[SUPERUSER])
        # A linguistic collation, as most production databases have: byte order must not be taken for granted.
        command = [str(self._binaries / "initdb"), "-D", str(self._folder / "data"), "-U", SUPERUSER, "--no-sync"]
        command += ["-E", "UTF8", "--no-locale", "--locale-provider=icu", "--icu-locale=en-US"]
        command += ["-A", "scram-sha-256", f"--pwfile={password_file}"]
        made = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            cwd=self._folder,
            user=self._user.pw_uid if self._user else None,
            group=self._user.pw_gid if self._user else None,
            extra_groups=[] if self._user else None,
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{made.stdout}{made.stderr}")
        self.start()
        self.sql(
            f"CREATE ROLE {role} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE "
            f"PASSWORD '{self._passwords[role]}'"
            for role in (OWNER, APP)
        )


def _in_thread(work: Callable[[], T]) -> T:
    # An event loop of its own is not to be had in the thread of an async test.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def _unprivileged_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
