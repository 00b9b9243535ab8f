"""The list of ingested events, for whoever looks for a particular one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from kgents.clock import from_rfc3339
from kgents.meter.answer import rfc3339
from kgents.meter.model import MAX_TIME, Invalid
from kgents.meter.windows import DAY, SECOND

MAX_LISTED = 100
_LATELY = 32 * DAY  # as far back as OpenMeter looks unless `from` is given
_TIMES = {
    "from": ("time >= ?", 0),
    "to": ("time < ?", 1),
    "ingestedAtFrom": ("ingested_at >= ?", 0),
    "ingestedAtTo": ("ingested_at < ?", 1),
}
_PARTS = {"id": "instr(id, ?) > 0", "subject": "instr(subject, ?) > 0"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The conditions that events have to meet, with their values, and how many are listed."""

    conditions: tuple[str, ...]
    values: tuple[int | str, ...]
    limit: int


def from_params(params: Iterable[tuple[str, str]], now: int) -> Wanted:
    """What a URL's parameters ask for. `id` and `subject` may be parts; the second that `to` names is included, as in
    OpenMeter. Raises Invalid.
    """
    found: dict[str, int | str] = {"time >= ?": now - _LATELY}
    limit = MAX_LISTED
    for name, value in params:
        if name in _TIMES:
            condition, further = _TIMES[name]
            try:
                found[condition] = (min(from_rfc3339(value), MAX_TIME) // SECOND + further) * SECOND
            except ValueError as error:
                raise Invalid(f"{name} can't be read: {error}") from None
        elif name in _PARTS:
            found[_PARTS[name]] = value
        elif name == "limit":
            if not (value.isascii() and value.isdigit() and len(value) < 5 and 1 <= int(value) <= MAX_LISTED):
                raise Invalid(f"limit must be 1 to {MAX_LISTED}")
            limit = int(value)
        elif name == "customerId":
            raise Invalid("customerId is not supported: this meter knows subjects, not customers")
    return Wanted(tuple(found), tuple(found.values()), limit)


def listing(connection: sqlite3.Connection, wanted: Wanted) -> bytes:
    """The JSON of OpenMeter's IngestedEvents, newest first."""
    sql = (
        "SELECT source, id, type, subject, time, ingested_at, data FROM events "  # noqa: S608 - what was asked is bound
        f"WHERE {' AND '.join(wanted.conditions)} ORDER BY time DESC LIMIT ?"
    )
    return orjson.dumps(
        [
            {
                "event": {
                    "specversion": "1.0",
                    "id": id_,
                    "source": source,
                    "type": type_,
                    "subject": subject,
                    "time": rfc3339(time),
                    "data": orjson.Fragment(data) if data else None,
                },
                "ingestedAt": rfc3339(ingested_at),
                "storedAt": rfc3339(ingested_at),
            }
            for source, id_, type_, subject, time, ingested_at, data in connection.execute(
                sql, (*wanted.values, wanted.limit)
            )
        ]
    )
