"""Writing SQLite's file anew, so that what was deleted is in none of its bytes."""

from __future__ import annotations

import contextlib
import sqlite3
import time

from kgents.errors import Unavailable
from kgents.store.engine import parse_url

PATIENCE = 60.0  # seconds for others to end what they are doing
HOLD = 500  # milliseconds for which writers are kept out at a time, to empty the WAL


def compact(url: str) -> bool:
    """Rewrite the SQLite file of a URL and empty its WAL; answers False for PostgreSQL, where there is nothing to do
    from here. Others may read the file, but can't write while it is rewritten: about 3 s for 100 MB. They wait for 5 s
    (sqlite.py), so above some 150 MB writes are refused as while the database is away, and have to be tried again.
    Raises Unavailable when others do not let go of it, or its disk has no room for it twice.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        return False
    try:
        with contextlib.closing(sqlite3.connect(parsed.database or "", isolation_level=None, timeout=PATIENCE)) as file:
            file.execute("PRAGMA secure_delete=ON")
            file.execute("PRAGMA synchronous=FULL")
            file.execute("VACUUM")
            # Folded back beside the writers first. What empties the WAL then keeps them out while it waits for readers.
            file.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            file.execute(f"PRAGMA busy_timeout={HOLD}")
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
