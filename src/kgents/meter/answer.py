"""Answering a meter's query from the meter's file, and writing the answer down as OpenMeter does."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from kgents.clock import to_rfc3339
from kgents.meter.layout import combine, readings
from kgents.meter.model import Meter
from kgents.meter.query import Query
from kgents.meter.windows import MINUTE

# The next subject is looked up in the primary key, one seek each, so that a query without subjects reads only the
# minutes of its time range, too.
_EVERY_SUBJECT = (
    "SELECT min(subject) FROM minutes WHERE meter = :meter UNION ALL "
    "SELECT (SELECT min(subject) FROM minutes WHERE meter = :meter AND subject > chosen.subject) "
    "FROM chosen WHERE chosen.subject IS NOT NULL"
)
_THESE_SUBJECTS = "SELECT DISTINCT value FROM json_each(:subjects)"
_VALUE = {"SUM": "sum(low)", "COUNT": "sum(low)", "MIN": "min(low)", "MAX": "max(low)"}


class Row(NamedTuple):
    """A value, and the window (in microseconds), subject and groups that it belongs to."""

    start: int
    end: int
    subject: str | None
    groups: tuple[str, ...]
    value: int


class _Part(NamedTuple):
    """A value of some minutes of one window, the first and the last of which start at these microseconds."""

    subject: str
    groups: tuple[str, ...]
    value: int
    first: int
    last: int


@dataclass(slots=True)
class _Window:
    value: int
    first: int
    last: int


def answer(connection: sqlite3.Connection, meter: Meter, query: Query) -> list[Row]:
    """One row for each window, subject and group that has events, in the order of time."""
    windows = query.windows
    chosen = [meter.group_by.index(name) for name in query.group_by]
    filters = [(meter.group_by.index(name), values) for name, values in query.filters.items()]
    bounds: dict[int, tuple[int, int]] = {}
    found: dict[tuple[tuple[int, int] | None, str | None, tuple[str, ...]], _Window] = {}
    for part in _parts(connection, meter, query):
        if any(part.groups[index] not in values for index, values in filters):
            continue
        window = None
        if windows is not None:
            window = bounds.get(part.first) or bounds.setdefault(part.first, windows.of(part.first))
        key = (window, part.subject if query.by_subject else None, tuple([part.groups[index] for index in chosen]))
        known = found.get(key)
        if known is None:
            found[key] = _Window(part.value, part.first, part.last)
        else:
            known.value = combine(meter, known.value, part.value)
            known.first, known.last = min(known.first, part.first), max(known.last, part.last)
    rows = []
    for (window, subject, groups), total in found.items():
        start, end = window or (
            total.first if query.asked_from is None else query.asked_from,
            total.last + MINUTE if query.asked_to is None else query.asked_to,
        )
        rows.append(Row(start, end, subject, groups, total.value))
    return sorted(rows, key=lambda row: (row.start, row.subject or "", row.groups))


def subjects(connection: sqlite3.Connection, meter: Meter, start: int, end: int) -> list[str]:
    """The subjects that a meter has counted in the minutes that [start, end) touches."""
    sql = (
        f"WITH RECURSIVE chosen(subject) AS ({_EVERY_SUBJECT}) SELECT subject FROM chosen WHERE EXISTS "  # noqa: S608
        "(SELECT 1 FROM minutes WHERE meter = :meter AND minutes.subject = chosen.subject "
        "AND minute >= :first AND minute < :last)"
    )
    values = {"meter": meter.slug, "first": start // MINUTE, "last": -(-end // MINUTE)}
    return [row[0] for row in connection.execute(sql, values)]


def _parts(connection: sqlite3.Connection, meter: Meter, query: Query) -> Iterator[_Part]:
    first, last = -(-query.start // MINUTE), query.end // MINUTE
    if first > last:
        yield from _edge(connection, meter, query, query.start, query.end)
        return
    yield from _minutes(connection, meter, query, first, last)
    yield from _edge(connection, meter, query, query.start, first * MINUTE)
    yield from _edge(connection, meter, query, last * MINUTE, query.end)


def _minutes(connection: sqlite3.Connection, meter: Meter, query: Query, first: int, last: int) -> Iterator[_Part]:
    grain = query.windows.grain // MINUTE if query.windows else 0
    sql = (
        "WITH RECURSIVE chosen(subject) AS "  # noqa: S608 - the parts are ours; what was asked for is bound
        f"({_EVERY_SUBJECT if query.subjects is None else _THESE_SUBJECTS}) "
        f"SELECT {'minutes.subject' if query.by_subject else 'NULL'} AS whose, "
        f"{'groups' if query.group_by or query.filters else 'NULL'} AS grouped, "
        f"{'minute / :grain' if grain else 'NULL'} AS bucket, "
        f"sum(high), {_VALUE[meter.aggregation]}, min(minute), max(minute) "
        "FROM chosen CROSS JOIN minutes ON minutes.meter = :meter AND minutes.subject = chosen.subject "
        "AND minute >= :first AND minute < :last GROUP BY whose, grouped, bucket"
    )
    values = {
        "meter": meter.slug,
        "subjects": orjson.dumps(query.subjects).decode(),
        "grain": grain,
        "first": first,
        "last": last,
    }
    nothing = ("",) * len(meter.group_by)
    known: dict[str, tuple[str, ...]] = {}
    for subject, grouped, bucket, high, low, begin, end in connection.execute(sql, values):
        groups = nothing
        if grouped is not None:
            groups = known.get(grouped) or known.setdefault(grouped, tuple(orjson.loads(grouped)))
        begin = begin if bucket is None else bucket * grain
        yield _Part(subject, groups, (high << 32) + low, begin * MINUTE, end * MINUTE)


def _edge(connection: sqlite3.Connection, meter: Meter, query: Query, start: int, end: int) -> Iterator[_Part]:
    """The events of a part of a minute."""
    if start >= end:
        return
    sql = "SELECT subject, time, data FROM events WHERE type = ? AND time >= ? AND time < ?"
    for subject, time, data in connection.execute(sql, (meter.event_type, start, end)):
        if query.subjects is not None and subject not in query.subjects:
            continue
        minute = time - time % MINUTE
        for _, groups, value in readings({meter.event_type: [meter]}, meter.event_type, data):
            yield _Part(subject, groups, value, minute, minute)


def as_json(query: Query, rows: Sequence[Row]) -> bytes:
    """OpenMeter's MeterQueryResult."""
    times: dict[int, str] = {}
    document: dict[str, Any] = {}
    for name, moment in (("from", query.asked_from), ("to", query.asked_to)):
        if moment is not None:
            document[name] = rfc3339(moment)
    if query.size is not None:
        document["windowSize"] = query.size
    document["data"] = [
        {
            "value": row.value,
            "windowStart": times.get(row.start) or times.setdefault(row.start, rfc3339(row.start)),
            "windowEnd": times.get(row.end) or times.setdefault(row.end, rfc3339(row.end)),
            "subject": row.subject,
            "groupBy": dict(zip(query.group_by, row.groups, strict=True)),
        }
        for row in rows
    ]
    try:
        return orjson.dumps(document)
    except TypeError:  # orjson has no integers beyond 64 bits
        return json.dumps(document, separators=(",", ":")).encode()


def as_csv(query: Query, rows: Sequence[Row]) -> bytes:
    """OpenMeter's CSV of the same."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["window_start", "window_end", "subject", *query.group_by, "value"])
    for row in rows:
        writer.writerow([rfc3339(row.start), rfc3339(row.end), row.subject or "", *row.groups, row.value])
    return text.getvalue().encode()


def rfc3339(moment: int) -> str:
    """A time as OpenMeter writes it: a fraction only where there is one."""
    text = to_rfc3339(moment)
    return text.removesuffix(".000000Z") + "Z" if text.endswith(".000000Z") else text
