"""The supervisor of a fault test: breaks processes of a kgents under load, and waits until it works as before."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import httpx2

from tests.faults.load import Load
from tests.support.up import Up
from tests.support.waiting import wait_until

HEALED = 0.9  # of the usual throughput
WITHIN = 10.0  # seconds
SPAN = 1.0  # seconds over which a rate of the meter is taken
PATIENCE = 120.0  # seconds without an answer after which it is taken for dead


class Supervisor:
    """Breaks one kgents. `usual` is its throughput in good answers a second, measured before anything was broken; as
    many runs a second come to the meter.
    """

    def __init__(self, up: Up, load: Load) -> None:
        self.up = up
        self._load = load
        self._killed: dict[str, int] = {}
        with up.client() as client:
            self._tenant = client.get("/v1/tenant").raise_for_status().json()["id"]
        self.usual = self._measure()
        self.late: list[str] = []
        """Each round that was not back at 90 % in time. The faults go on, so that what is lost shows as well."""
        self.given_up = 0
        """Processes that were taken for dead while they were frozen, and started again."""
        self._slowest = 0.0
        self._rounds = 0

    def kill(self, *names: str) -> None:
        """SIGKILL the processes. One that is being started again is waited for: each kill is that of a process."""
        for name in names:
            self._killed[name] = _signal(self.up, name, signal.SIGKILL, but=self._killed.get(name, 0))

    @contextmanager
    def frozen(self, *names: str) -> Iterator[None]:
        """Stop the processes for a while."""
        with frozen(self.up, *names) as pids:
            yield
            self.given_up += sum(not _send(pid, 0) for pid in pids)

    def heal(self, within: float = WITHIN, patience: float = PATIENCE) -> None:
        """Wait until the throughput is at 90 % again, in answers and then in runs that come to the meter, and note when
        that was not so `within` so many seconds. Raises TimeoutError when nothing at all is answered for `patience`
        seconds.
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
        with self.up.meter() as meter:
            rates = Metered(meter, self._tenant)
            while (rate := rates.look()) < HEALED * self.usual:
                if time.monotonic() - began > within:
                    self.late.append(f"round {self._rounds}: {rate:.0f}/s metered {within:g} s after the fault")
                    return
                time.sleep(0.1)
        self._slowest = max(self._slowest, time.monotonic() - began)

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


class Metered:
    """The rate at which a tenant's runs come to the meter, from one look to another about a second later."""

    def __init__(self, meter: httpx2.Client, tenant: str) -> None:
        self._meter = meter
        self._tenant = tenant
        self._seen: list[tuple[float, int]] = []

    def look(self) -> float:
        """Runs a second now; 0 while the meter does not answer, or nothing can be said yet."""
        try:
            answer = self._meter.get("/api/v1/meters/runs/query", params={"subject": self._tenant}, timeout=1)
            found = sum(row["value"] for row in answer.raise_for_status().json()["data"])
        except httpx2.HTTPError:
            self._seen = []
            return 0.0
        now = time.monotonic()
        self._seen = [*(seen for seen in self._seen if seen[0] > now - SPAN), (now, found)]
        moment, before = self._seen[0]
        return (found - before) / (now - moment) if now - moment > SPAN / 2 else 0.0


@contextmanager
def frozen(up: Up, *names: str) -> Iterator[list[int]]:
    """Stop processes for a while (SIGSTOP, SIGCONT). One that is being started again is waited for."""
    pids: list[int] = []
    try:
        pids.extend(_signal(up, name, signal.SIGSTOP) for name in names)
        yield pids
    finally:
        for pid in pids:
            _send(pid, signal.SIGCONT)


def kill(pid: int) -> None:
    """SIGKILL, also to a process that is dead."""
    _send(pid, signal.SIGKILL)


def _signal(up: Up, name: str, number: signal.Signals, *, but: int = 0) -> int:
    """Send a signal to a process as soon as there is one, other than that of the pid `but`; answers its pid."""
    pid = 0

    def taken() -> bool:
        nonlocal pid
        pid = up.pid(name)
        return pid != but and _send(pid, number)

    wait_until(taken, seconds=30, what=f"there is a process {name}")
    return pid


def _send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
