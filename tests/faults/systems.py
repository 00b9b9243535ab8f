"""A kgents on a database of either kind, which a test may break as it likes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

from kgents.store.migrate import migrate
from tests.support.postgres import PostgresServer, serve_postgres
from tests.support.up import Up

FULL = bool(os.environ.get("KGENTS_FULL"))
"""Whether the full counts are asked for (`make faults`)."""


def new_seed() -> int:
    """The seed of a test: KGENTS_SEED where it is set, to run a failed one again. It is printed, for that."""
    seed = int(os.environ.get("KGENTS_SEED") or SystemRandom().randrange(2**31))
    print(f"KGENTS_SEED={seed}")
    return seed


@dataclass(frozen=True, slots=True)
class System:
    """A running kgents, and its PostgreSQL where it has one."""

    up: Up
    postgres: PostgresServer | None = None


@contextmanager
def running(dialect: str, data: Path, *, module: str = "kgents.cli.main", **environment: str) -> Iterator[System]:
    """A kgents on a database of its own. `module` is what Python runs instead of the command."""
    with ExitStack() as stack:
        server = None
        if dialect == "postgresql":
            server = stack.enter_context(serve_postgres(migrate))
            environment |= server.environment(server.create_database())
        up = Up(data, environment=environment, module=module).start()
        stack.callback(stop, up)
        yield System(up, server)


def stop(up: Up) -> None:
    """End it, whatever state it is in."""
    with contextlib.suppress(AssertionError, ProcessLookupError):
        up.stop()
