"""Writing SQLite's file anew, so that what was deleted is in none of its bytes."""

from __future__ import annotations

import contextlib
import sqlite3
import time

from kgents.errors import Unavailable
from kgents.store.engine import parse_url

PATIENCE = 60.0  # seconds for others to end what they are doing


def compact(url: str) -> bool:
    """Rewrite the SQLite file of a URL and empty its WAL; answers False for PostgreSQL, where there is nothing to do
    from here. Others may use the file, but for writing they wait meanwhile. Raises Unavailable when they do not let go
    of it, or its disk has no room for it twice.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        return False
    try:
        with contextlib.closing(sqlite3.connect(parsed.database or "", isolation_level=None, timeout=PATIENCE)) as file:
            file.execute("PRAGMA secure_delete=ON")
            file.execute("PRAGMA synchronous=FULL")
            file.execute("VACUUM")
            deadline = time.monotonic() + PATIENCE
            # Busy while somebody still reads what is in the WAL.
            while file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() > deadline:
                    raise sqlite3.OperationalError("others keep its WAL in use")
                time.sleep(0.05)
    except sqlite3.Error as error:
        raise Unavailable(
            f"The database's file could not be written anew: {error}. What was erased is in no table, but may still be "
            "in bytes of the file that are free. Make room on its disk, or wait for less load, and run it again.",
            code="store-unavailable",
        ) from error
    return True
