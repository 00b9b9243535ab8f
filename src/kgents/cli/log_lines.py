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

    def of(self, process: str, texts: Iterable[str]) -> Iterator[Line]:
        """The wanted ones among the lines that a process wrote, one after the other. What is no JSON, such as a
        traceback, has the time of the line before it.
        """
        if self.processes and not any(_names(process, name) for name in self.processes):
            return
        ids = [each for each in (self.tenant, self.trace) if each]
        least = LEVELS.index(self.level)
        before = 0
        for text in texts:
            if ids and not all(each in text for each in ids):
                continue  # most lines, mostly: not worth being read
            line = parse(process, text, before)
            before = line.time
            fields = line.fields
            if (
                self.since <= line.time
                and (self.until is None or line.time < self.until)
                and (not self.tenant or fields.get("tenant_id") == self.tenant)
                and (not self.trace or fields.get("trace_id") == self.trace)
                and (fields["level"] not in LEVELS or LEVELS.index(fields["level"]) >= least)
            ):
                yield line


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
