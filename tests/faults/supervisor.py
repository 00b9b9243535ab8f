"""The supervisor of a fault test: breaks processes of a kgents under load, and waits until it works as before."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from statistics import median

from tests.faults.load import Load
from tests.support.up import Up

HEALED = 0.9  # of the usual throughput
WITHIN = 10.0  # seconds
PATIENCE = 120.0  # seconds without an answer after which it is taken for dead


class Supervisor:
    """Breaks one kgents. `usual` is its throughput in good answers a second, measured before anything was broken."""

    def __init__(self, up: Up, load: Load) -> None:
        self.up = up
        self._load = load
        self.usual = self._measure()
        self.late: list[str] = []
        """Each round that was not back at 90 % in time. The faults go on, so that what is lost shows as well."""
        self._slowest = 0.0
        self._rounds = 0

    def kill(self, *names: str) -> None:
        """SIGKILL the processes; those that are being started again already are dead enough."""
        for name in names:
            kill(self.up.pid(name))

    def frozen(self, *names: str) -> AbstractContextManager[None]:
        """Stop the processes for a while."""
        return frozen(self.up, *names)

    def heal(self, within: float = WITHIN, patience: float = PATIENCE) -> None:
        """Wait until the throughput is at 90 % again, and note when that was not so `within` so many seconds. Raises
        TimeoutError when nothing at all is answered for `patience` seconds.
        """
        began = time.monotonic()
        self._rounds += 1
        while (took := time.monotonic() - began) < 0.2 or self._load.rate(min(1.0, took)) < HEALED * self.usual:
            if took > within and self._load.rate() > 0:
                self.late.append(f"round {self._rounds}: {self._load.rate():.0f}/s {within:g} s after the fault")
                return
            if took > patience:
                raise TimeoutError(f"{patience:g} s after the fault nothing is answered; before it {self.usual:.0f}/s")
            time.sleep(0.05)
        self._slowest = max(self._slowest, took)

    def told(self, within: float = WITHIN) -> str:
        """How it got over the faults, in words."""
        if self.late:
            missed = f"{len(self.late)} of {self._rounds}"
            return f"in {missed} rounds not back at 90 % of {self.usual:.0f}/s within {within:g} s"
        return f"back at 90 % of {self.usual:.0f}/s within {self._slowest:.1f} s"

    def _measure(self) -> float:
        time.sleep(1.5)  # connections, caches
        rates = []
        for _ in range(3):
            time.sleep(1.0)
            rates.append(self._load.rate())
        return median(rates)


@contextmanager
def frozen(up: Up, *names: str) -> Iterator[None]:
    """Stop processes for a while (SIGSTOP, SIGCONT)."""
    pids = [up.pid(name) for name in names]
    for pid in pids:
        _send(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            _send(pid, signal.SIGCONT)


def kill(pid: int) -> None:
    """SIGKILL, also to a process that is dead."""
    _send(pid, signal.SIGKILL)


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it is dead
