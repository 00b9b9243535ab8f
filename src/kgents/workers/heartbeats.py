"""Telling which processes are dead, without comparing the clocks of several.

A process is dead when its heartbeat has stood still for as long as `runs.LEASE`, by the monotonic clock of the process
that looks. What it looked on at counts only while it looked on: not while it stood still itself or the database was
away, since then the others may have stood still or could not write. Each time that is over, they get a whole lease to
be heard of again, and so they do by a process that has just begun to look.
"""

from __future__ import annotations

from collections.abc import Sequence

from kgents.agents.runs import LEASE, Heartbeat
from kgents.clock import Clock

LOOK = LEASE / 8  # seconds between two looks; a death is known within LEASE and two of them
LATE = LEASE / 2  # seconds without a look, or without anybody's heartbeat, after which nothing is known


class Heartbeats:
    """Remembers since when each heartbeat has stood still."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[Heartbeat, float] = {}
        self._looked = self._heard = clock.monotonic()

    def look(self, found: Sequence[Heartbeat]) -> list[Heartbeat]:
        """Take note of all heartbeats as they are recorded now; answers those of dead processes."""
        now = self._clock.monotonic()
        if any(beat not in self._since for beat in found):
            self._heard = now
        if now - self._looked > LATE or now - self._heard > LATE:
            self.forget()
        self._looked = now
        self._since = {beat: self._since.get(beat, now) for beat in found}
        return [beat for beat, since in self._since.items() if now - since >= LEASE]

    def forget(self) -> None:
        """Begin anew, after a look that failed."""
        self._since.clear()
