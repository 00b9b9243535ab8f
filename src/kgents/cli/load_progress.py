"""How a load test shows how far it is: a bar on a terminal, and a line every few seconds elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from kgents.cli.output import note
from kgents.load.measured import Counts, percentile
from kgents.load.profiles import Step
from kgents.load.run import Watcher

LINES = 5.0  # seconds between two lines


class _Lines:
    """On anything but a terminal."""

    def __init__(self) -> None:
        self._step = Step("", 0, 0)
        self._told = 0.0

    def begin(self, step: Step) -> None:
        self._step, self._told = step, 0.0
        note(f"{step.name}: {_rate(step)} for {step.seconds:g} s")

    def tell(self, second: float, counts: Counts) -> None:
        if second - self._told >= LINES:
            self._told = second
            note(f"{self._step.name}: {second:.0f} of {self._step.seconds:g} s, {said(counts)}")

    def end(self, found: Mapping[str, Any]) -> None:
        note(ended(found))


class _Bar:
    """On a terminal."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._task: Any = None

    def begin(self, step: Step) -> None:
        self._task = self._progress.add_task(f"{step.name}, {_rate(step)}", total=step.seconds, said="")

    def tell(self, second: float, counts: Counts) -> None:
        self._progress.update(self._task, completed=second, said=said(counts))

    def end(self, found: Mapping[str, Any]) -> None:
        self._progress.remove_task(self._task)
        self._progress.console.print(ended(found), highlight=False, soft_wrap=True)


@contextlib.contextmanager
def shown() -> Iterator[Watcher]:
    """Shows a run on stderr."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(20),
        TimeRemainingColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bar(progress)


def said(counts: Counts) -> str:
    """What came in, and the median latency since it was last said."""
    recent, counts.recent = sorted(counts.recent), []
    middle = f", p50 {percentile(recent, 0.5) * 1000:.1f} ms" if recent else ""
    return f"{counts.good:,} answered, {counts.bad:,} errors{middle}"


def ended(found: Mapping[str, Any]) -> str:
    """A step in one line."""
    parts = [f"{found['name']}: {found['achieved']:g} requests/s"]
    if found["offered"]:
        parts[0] += f" of {found['offered']:g} offered"
    for name, text in (("latency_ms", ""), ("first_token_ms", "first token ")):
        if found[name]:
            parts.append(f"{text}p50 {found[name]['p50']:g} ms, p99 {found[name]['p99']:g} ms")
    parts.append(f"{found['errors']} errors")
    return "; ".join(parts)


def _rate(step: Step) -> str:
    return f"{step.rate:g} requests/s" if step.rate else "closed loop"
