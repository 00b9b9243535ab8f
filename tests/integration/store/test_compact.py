"""Writing SQLite's file anew, while others use it."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kgents.store.compact import compact
from kgents.store.sqlite import LOCK_WAIT
from tests.support.waiting import wait_until


@pytest.fixture
def file(sqlite_template: Path, tmp_path: Path) -> Path:
    """A database with free pages."""
    path = tmp_path / "kgents.db"
    shutil.copy(sqlite_template, path)
    with contextlib.closing(connect(path)) as connection:
        connection.execute("CREATE TABLE words (word)")
        connection.execute("INSERT INTO words VALUES (hex(randomblob(200000)))")
        connection.execute("DELETE FROM words")
    return path


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=LOCK_WAIT, check_same_thread=False)


def free_pages(path: Path) -> int:
    with contextlib.closing(connect(path)) as connection:
        count: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
        return count


def test_who_still_reads_does_not_keep_others_from_writing(file: Path) -> None:
    with (
        contextlib.closing(connect(file)) as reader,
        contextlib.closing(connect(file)) as writer,
        ThreadPoolExecutor(1) as elsewhere,
    ):
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM words").fetchall()
        compacting = elsewhere.submit(compact, f"sqlite:///{file}")
        wait_until(lambda: free_pages(file) == 0, seconds=30, what="the file is written anew")
        for _ in range(3):
            writer.execute("INSERT INTO words VALUES ('new')")
        assert not compacting.done()
        reader.execute("COMMIT")
        assert compacting.result(30)
