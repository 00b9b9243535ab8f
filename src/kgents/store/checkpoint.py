"""The WAL is folded back into SQLite's file beside the writer, not by it.

Left to itself, SQLite has the writer do that with its commit, each thousand pages: it writes them at random places and
waits for the disk twice, and so does everybody whose work is in its queue (https://www.sqlite.org/wal.html, "Avoiding
Excessively Large WAL Files").
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading

GROUPS = 32
"""After so many commits the pages are folded back: about a thousand of them when it is busy."""
MAX_PAGES = 2000
"""In so long a WAL the writer folds back the rest itself. It can begin the WAL anew only after a moment at which
nothing is left in it, and under load only the writer makes one.
"""


class Checkpointer:
    """A thread that folds the WAL of the SQLite file at `path` back, when the writer has written much."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._groups = 0
        self._due = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sqlite-checkpoint", daemon=True)
        self._thread.start()

    def committed(self) -> None:
        """The writer says that it has committed a group."""
        self._groups += 1
        if self._groups >= GROUPS:
            self._groups = 0
            self._due.set()

    def close(self) -> None:
        """End it, once it has done what it is doing."""
        self._closed = True
        self._due.set()
        self._thread.join()

    def _run(self) -> None:
        while self._is_due():
            # What fails here, on a full disk for one, is tried again after the next groups; the writer meets it, too,
            # and tells.
            with contextlib.suppress(sqlite3.Error), contextlib.closing(self._open()) as connection:
                due = True
                while due:
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                    due = self._is_due()

    def _is_due(self) -> bool:
        """Wait until there is something to do; False once it is to end."""
        if not self._closed:
            self._due.wait()
            self._due.clear()
        return not self._closed

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA synchronous=FULL")
        return connection
