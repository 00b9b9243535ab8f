"""`kgents logs`: what the processes of a kgents log, on this machine or in a cluster."""

from __future__ import annotations

import heapq
import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import typer

from kgents.cli.client import Refused
from kgents.cli.log_file import OLDER, Tail
from kgents.cli.log_lines import Line, Reader, Wanted, shown
from kgents.cli.options import moment
from kgents.cli.output import Format
from kgents.clock import SECOND, SystemClock, from_rfc3339
from kgents.deploy.kubectl import Kubectl
from kgents.deploy.pod_logs import PodLogs

LAST = 100  # lines that are shown where no time is given
GATHER = 0.3  # seconds for which new lines are gathered and put in order
LATE = 2 * SECOND  # what a line may take from where it is written
_AGO = re.compile(r"(\d{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_OLDER = re.compile(rf"\.[1-{OLDER}]$")


class Source(Protocol):
    """Where logs are read."""

    def past(self, since: int, *, every: bool) -> Iterator[tuple[str, Iterator[str]]]:
        """What each process wrote since then, where that can be told (microseconds; 0: its last lines, or every)."""
        ...

    def following(self, seconds: float) -> Generator[list[tuple[str, str]]]:
        """What they write after that, gathered for so many seconds."""
        ...


class Files:
    """The log files of a `kgents up`."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._tails: dict[Path, Tail] = {}

    def past(self, since: int, *, every: bool) -> Iterator[tuple[str, Iterator[str]]]:  # noqa: ARG002 - they are read whole
        """Raises Refused where there are none."""
        self._look()
        if not self._tails:
            raise Refused(
                f"There are no logs in {self._data}. Name the data folder of a kgents up with --data, or the namespace "
                "of a cluster with --namespace."
            )
        for path, tail in self._tails.items():
            yield path.stem, tail.lines()

    def following(self, seconds: float) -> Generator[list[tuple[str, str]]]:
        try:
            while True:
                time.sleep(seconds)
                self._look()
                yield [(path.stem, line) for path, tail in self._tails.items() for line in tail.lines()]
        finally:
            for tail in self._tails.values():
                tail.close()

    def _look(self) -> None:
        found = [path for path in (self._data / "logs").glob("*.jsonl") if not _OLDER.search(path.stem)]
        for path in [*sorted(found), self._data / "nats" / "nats.log"]:
            if path not in self._tails and path.exists():
                self._tails[path] = Tail(path)


def run(
    wanted: Wanted, *, since: str, until: str, follow: bool, output: Format, data: Path, cluster: tuple[str, str] | None
) -> None:
    """Print the wanted lines in the order of their times. `cluster` is kubectl's context and a namespace.

    Raises Refused where there are no logs or the cluster does not answer.
    """
    now = SystemClock().now()
    wanted = replace(wanted, since=_moment(since, now) or 0, until=_moment(until, now))
    source: Source = PodLogs(Kubectl(cluster[0]), cluster[1]) if cluster else Files(data)
    readers: dict[str, Reader] = {}
    lines = heapq.merge(
        *(
            readers.setdefault(name, Reader(wanted, name)).read(texts)
            for name, texts in source.past(wanted.since, every=wanted.is_choosy())
        ),
        key=lambda line: line.time,
    )
    _print(lines if since else deque(lines, LAST), output)
    if follow and (wanted.until is None or wanted.until > now):
        _follow(source, wanted, readers, output)


def _follow(source: Source, wanted: Wanted, readers: dict[str, Reader], output: Format) -> None:
    clock = SystemClock()
    with closing(source.following(GATHER)) as batches:
        for batch in batches:
            found = (
                line for name, text in batch for line in readers.setdefault(name, Reader(wanted, name)).read([text])
            )
            _print(sorted(found, key=lambda line: line.time), output)
            if wanted.until is not None and clock.now() > wanted.until + LATE:
                return


def _print(lines: Iterable[Line], output: Format) -> None:
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in lines:
        if output is Format.JSON:
            text = json.dumps(line.fields, ensure_ascii=False)
        elif output is Format.YAML:
            import yaml

            text = "---\n" + yaml.safe_dump(line.fields, sort_keys=False, allow_unicode=True).rstrip("\n")
        else:
            text = shown(line, colour=colour)
        sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _moment(text: str, now: int) -> int | None:
    """A time, or how long ago it was (`30s`, `10m`, `2h`, `1d`), in microseconds; None for "". Raises BadParameter."""
    if found := _AGO.fullmatch(text):
        return now - int(found[1]) * _SECONDS[found[2]] * SECOND
    try:
        return from_rfc3339(moment(text)) if text else None
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} can't be read: {error}") from None
