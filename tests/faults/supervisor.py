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
PATIENCE = 120.0  # seconds after which it is taken for dead


class Supervisor:
    """Breaks one kgents. `usual` is its throughput in good answers a second, measured before anything was broken."""

    def __init__(self, up: Up, load: Load) -> None:
        self.up = up
        self._load = load
        self.usual = self._measure()
        self.slowest = 0.0
        """The longest time that it took to work as before, in seconds."""
        self.late: list[str] = []
        """Each time that this was over its bound. The faults go on, so that what is lost shows as well."""

    def kill(self, *names: str) -> None:
        """SIGKILL the processes; those that are being started again already are dead enough."""
        for name in names:
            kill(self.up.pid(name))

    def frozen(self, *names: str) -> AbstractContextManager[None]:
        """Stop the processes for a while."""
        return frozen(self.up, *names)

    def heal(self, within: float = WITHIN, patience: float = PATIENCE) -> None:
        """Wait until the throughput is at 90 % again, and note how long that took. Raises TimeoutError when it takes
        longer than `patience`.
        """
        began = time.monotonic()
        window = 1.0
        while True:
            took = time.monotonic() - began
            if self._load.rate(min(window, max(0.2, took))) >= HEALED * self.usual and took >= 0.2:
                break
            if took > patience:
                raise TimeoutError(
                    f"{patience:g} s after the fault: {self._load.rate():.0f} answers/s, before it {self.usual:.0f}"
                )
            time.sleep(0.05)
        self.slowest = max(self.slowest, took)
        if took > within:
            self.late.append(f"at 90 % of {self.usual:.0f}/s after {took:.1f} s, not within {within:g} s")

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
