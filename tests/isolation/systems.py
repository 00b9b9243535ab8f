"""A kgents on a database of either kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kgents.store.migrate import migrate
from tests.support.postgres import PostgresServer, serve_postgres
from tests.support.up import UNMEASURED, Up


@dataclass(frozen=True, slots=True)
class System:
    """A running kgents; `postgres` and `database` say where its tables are, unless that is SQLite."""

    up: Up
    postgres: PostgresServer | None = None
    database: str = ""


@contextmanager
def running(dialect: str, data: Path, *, plant: str = "", **environment: str) -> Iterator[System]:
    """A kgents on a database of its own. `plant` is the function that loses its tenant filter."""
    with ExitStack() as stack:
        server, name = None, ""
        if dialect == "postgresql":
            server = stack.enter_context(serve_postgres(migrate))
            name = server.create_database()
            environment |= server.environment(name)
        module = "tests.isolation.planted" if plant else "kgents.cli.main"
        up = Up(
            data, environment={"PLANT": plant, "KGENTS_INVOICE_DELAY": "0", **UNMEASURED, **environment}, module=module
        ).start()
        stack.callback(up.stop)
        yield System(up, server, name)
