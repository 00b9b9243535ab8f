"""Log lines as `kgents logs` reads them: which are wanted, and how one is shown."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from kgents.cli.output import cell, printable
from kgents.clock import from_rfc3339, to_rfc3339

LEVELS = ("debug", "info", "warning", "error", "critical")
_FIRST = ("timestamp", "level", "process", "event")
_LAST = ("tenant_id", "run_id", "request_id", "trace_id", "span_id")
_NATS = re.compile(r"\[\d+\] (\d{4})/(\d\d)/(\d\d) (\d\d:\d\d:\d\d\.\d+) \[(\w{3})\] (.*)")
_NATS_LEVELS = {"DBG": "debug", "TRC": "debug", "INF": "info", "WRN": "warning", "ERR": "error", "FTL": "critical"}
_COLOURS = {"warning": "33", "error": "31", "critical": "1;31", "debug": "2"}


class Line(NamedTuple):
    """A line: when it was written, in microseconds since the epoch, and its fields."""

    time: int
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines: of a level or above, in [since, until), and of a tenant, a trace and processes where given."""

    level: str = "debug"
    tenant: str = ""
    trace: str = ""
    processes: Sequence[str] = ()
    since: int = 0
    until: int | None = None

    def is_choosy(self) -> bool:
        """Whether any line of a process may be one of the last that are wanted."""
        return bool(self.tenant or self.trace or self.until is not None or self.level != LEVELS[0])


class Reader:
    """The wanted ones among the lines that a process writes, one after the other. What is no JSON, such as a traceback,
    has the time of the line before it.
    """

    def __init__(self, wanted: Wanted, process: str) -> None:
        self._wanted = wanted
        self._process = process
        self._named = not wanted.processes or any(_names(process, name) for name in wanted.processes)
        self._ids = [each for each in (wanted.tenant, wanted.trace) if each]
        self._least = LEVELS.index(wanted.level)
        self._before = 0

    def read(self, texts: Iterable[str]) -> Iterator[Line]:
        """Those among the next lines."""
        if not self._named:
            return
        for text in texts:
            if self._ids and not all(each in text for each in self._ids):
                continue  # most lines, mostly: not worth being read
            line = parse(self._process, text, self._before)
            self._before = line.time
            if self._is_wanted(line):
                yield line

    def _is_wanted(self, line: Line) -> bool:
        wanted, fields = self._wanted, line.fields
        return (
            wanted.since <= line.time
            and (wanted.until is None or line.time < wanted.until)
            and (not wanted.tenant or fields.get("tenant_id") == wanted.tenant)
            and (not wanted.trace or fields.get("trace_id") == wanted.trace)
            and (fields["level"] not in LEVELS or LEVELS.index(fields["level"]) >= self._least)
        )


def _names(process: str, wanted: str) -> bool:
    """Whether `wanted` means the process: `api` is `api`, and the pods `kgents-api-...` and `kgents-api-...-2`."""
    return process == wanted or f"-{wanted}-" in f"-{process}-"


def parse(process: str, text: str, before: int = 0) -> Line:
    """A line of a process; it is of `before` where it tells no time."""
    try:
        fields = json.loads(text)
        return Line(from_rfc3339(fields["timestamp"]), {"level": "info", **fields, "process": process})
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    if found := _NATS.fullmatch(text):
        time = f"{found[1]}-{found[2]}-{found[3]}T{found[4]}Z"
        level, event = _NATS_LEVELS.get(found[5], "info"), found[6]
        with contextlib.suppress(ValueError):  # a time that there is not
            return Line(from_rfc3339(time), {"timestamp": time, "level": level, "event": event, "process": process})
    return Line(before, {"timestamp": to_rfc3339(before), "level": "error", "event": text, "process": process})


def shown(line: Line, *, colour: bool) -> str:
    """A line for people: time, level, process and event, then the other fields, ids last."""
    fields = line.fields
    others = [name for name in fields if name not in (*_FIRST, *_LAST)]
    more = [f"{name}={cell(fields[name])}" for name in (*others, *(name for name in _LAST if name in fields))]
    level = f"{cell(fields['level']):<8}"
    if colour and (code := _COLOURS.get(level.strip())):
        level = f"\x1b[{code}m{level}\x1b[0m"
    time = to_rfc3339(line.time)[:23].replace("T", " ")
    event = printable(str(fields.get("event", ""))).replace("\n", "\\n")
    return " ".join([time, level, f"{printable(str(fields['process'])):<7}", event, *more]).rstrip()
