"""The embedded meter's file: its tables, and bringing an older file or other meters up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import orjson

from kgents.errors import Unavailable
from kgents.meter.model import Invalid, Meter, Reading, read
from kgents.meter.windows import MINUTE

VERSION = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS events (
    source TEXT NOT NULL, id TEXT NOT NULL, type TEXT NOT NULL, subject TEXT NOT NULL,
    time INTEGER NOT NULL, ingested_at INTEGER NOT NULL, data TEXT,
    PRIMARY KEY (source, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS events_time ON events (time);
CREATE TABLE IF NOT EXISTS meters (
    slug TEXT PRIMARY KEY, definition TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS minutes (
    meter TEXT NOT NULL, subject TEXT NOT NULL, minute INTEGER NOT NULL, groups TEXT NOT NULL,
    high INTEGER NOT NULL, low INTEGER NOT NULL,
    PRIMARY KEY (meter, subject, minute, groups)
) WITHOUT ROWID;
"""

_UPSERT = (
    "INSERT INTO minutes (meter, subject, minute, groups, high, low) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
)
_COMBINE = {
    "SUM": _UPSERT + "SET high = high + excluded.high, low = low + excluded.low",
    "COUNT": _UPSERT + "SET high = high + excluded.high, low = low + excluded.low",
    "MIN": _UPSERT + "SET low = min(low, excluded.low)",
    "MAX": _UPSERT + "SET low = max(low, excluded.low)",
}

Slot = tuple[str, str, int, tuple[str, ...]]


class Tally:
    """What events add to the minutes, until it is written. Sums are exact, however large: SQLite's integers have 64
    bits and become floats beyond, so a sum is kept as two numbers, `high` times 2^32 and `low`.
    """

    def __init__(self) -> None:
        self._values: dict[Slot, tuple[Meter, int]] = {}

    def add(self, subject: str, time: int, readings: Iterable[Reading]) -> None:
        """Count an event."""
        for meter, groups, value in readings:
            slot = (meter.slug, subject, time // MINUTE, groups)
            known = self._values.get(slot)
            self._values[slot] = (meter, value if known is None else combine(meter, known[1], value))

    def write(self, connection: sqlite3.Connection) -> None:
        """Add it to the file's minutes."""
        for (slug, subject, minute, groups), (meter, value) in self._values.items():
            high, low = (0, value) if meter.aggregation in ("MIN", "MAX") else (value >> 32, value & 0xFFFFFFFF)
            row = (slug, subject, minute, orjson.dumps(groups).decode(), high, low)
            connection.execute(_COMBINE[meter.aggregation], row)


def ages(connection: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    """When each meter was made, and when it last began to count differently (microseconds)."""
    rows = connection.execute("SELECT slug, created_at, updated_at FROM meters")
    return {slug: (created_at, updated_at) for slug, created_at, updated_at in rows}


def combine(meter: Meter, one: int, other: int) -> int:
    """The value of two parts of a window together."""
    if meter.aggregation == "MIN":
        return min(one, other)
    return max(one, other) if meter.aggregation == "MAX" else one + other


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose commits are on disk before they return."""
    connection = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "journal_size_limit=67108864"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def open_file(path: Path, meters: Sequence[Meter], now: int) -> sqlite3.Connection:
    """The writing connection to a file that has this version's tables and these meters.

    A meter that is new, or counts differently than before, counts the events that are there. Raises Unavailable for
    a file that can't be used.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = connect(path)
        try:
            _prepare(connection, path, meters, now)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(
            f"The meter's file {path} can't be used: {error}. Make room or repair it, or move it away: "
            "`kgents usage reconcile --repair` fills a new one from the ledger.",
            code="meter-file",
        ) from error
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, meters: Sequence[Meter], now: int) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise Unavailable(
            f"The meter's file {path} was written by a newer kgents. Start that version, or move the file away: "
            "`kgents usage reconcile --repair` fills a new one from the ledger.",
            code="meter-file-newer",
        )
    connection.execute("BEGIN IMMEDIATE")
    try:
        if version == 0:
            connection.execute("DROP TABLE IF EXISTS minutes")  # before version 1 it had other columns
        for statement in _TABLES.split(";"):
            connection.execute(statement)
        _count_anew(connection, meters, now)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _count_anew(connection: sqlite3.Connection, meters: Sequence[Meter], now: int) -> None:
    known = dict(connection.execute("SELECT slug, definition FROM meters"))
    changed: dict[str, list[Meter]] = {}
    for meter in meters:
        definition = orjson.dumps(
            [meter.event_type, meter.aggregation, meter.value_property, list(meter.group_by)]
        ).decode()
        if known.pop(meter.slug, None) == definition:
            continue
        connection.execute("DELETE FROM minutes WHERE meter = ?", (meter.slug,))
        connection.execute(
            "INSERT INTO meters (slug, definition, created_at, updated_at) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET definition = excluded.definition, updated_at = excluded.updated_at",
            (meter.slug, definition, now, now),
        )
        changed.setdefault(meter.event_type, []).append(meter)
    for slug in known:
        connection.execute("DELETE FROM minutes WHERE meter = ?", (slug,))
        connection.execute("DELETE FROM meters WHERE slug = ?", (slug,))
    if changed:
        tally = Tally()
        for type_, subject, time, data in connection.execute("SELECT type, subject, time, data FROM events"):
            tally.add(subject, time, readings(changed, type_, data))
        tally.write(connection)


def readings(meters: Mapping[str, Sequence[Meter]], type_: str, data: str | None) -> Iterator[Reading]:
    """What a stored event says to the meters of its type; a meter that can't read it is told nothing."""
    for meter in meters.get(type_, ()):
        try:
            yield read(meter, orjson.loads(data) if data else None)
        except Invalid:
            continue
