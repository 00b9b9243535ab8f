"""The health page: what each dependency answered just now, never what the configuration hopes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kgents.clock import Clock, to_rfc3339
from kgents.errors import KgentsError

Status = Literal["connected", "degraded", "disconnected", "not_configured"]
Mode = Literal["embedded", "external"]
TIMEOUT = 1.0  # seconds for a dependency to answer
MAX_AGE = 1.0  # seconds for which an answer is told again


@dataclass(frozen=True, slots=True)
class Facts:
    """What a probe found: how many items wait for the dependency, and whether it works less well than it should."""

    backlog: int | None = None
    degraded: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One dependency. `probe` asks it and raises when it does not answer well. Without a `critical` one this process
    can't serve safely. A probe of None: there is no such dependency in this installation.
    """

    name: str
    mode: Mode
    probe: Callable[[], Awaitable[Facts]] | None
    critical: bool = False


@dataclass(frozen=True, slots=True)
class Component:
    """One dependency as it is now. `latency_ms` is of this answer, `last_ok` the last good one (RFC 3339)."""

    status: Status
    mode: Mode
    latency_ms: float | None
    last_ok: str | None
    backlog: int | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """The health of the process and its dependencies."""

    status: Literal["ok", "degraded", "unavailable"]
    components: dict[str, Component]

    @property
    def http_status(self) -> int:
        """503 only where the process can't serve safely."""
        return 503 if self.status == "unavailable" else 200

    def document(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "status": self.status,
            "components": {name: asdict(component) for name, component in self.components.items()},
        }

    def text(self) -> str:
        """The report a line for each check, as Kubernetes' API server writes its own."""
        lines = [
            f"[{'+' if component.status in ('connected', 'not_configured') else '-'}]{name} "
            + (
                "ok"
                if component.status == "connected"
                else f"{component.status}: {component.detail or ''}".rstrip(": ")
            )
            for name, component in self.components.items()
        ]
        return "\n".join([*lines, f"readyz {self.status}", ""])


class HealthBoard:
    """Asks every dependency at once, each with a timeout; tells an answer again for at most a second."""

    def __init__(self, checks: Sequence[Check], clock: Clock) -> None:
        self._checks = list(checks)
        self._clock = clock
        self._last_ok: dict[str, int] = {}
        self._asking: asyncio.Task[Report] | None = None
        self._answer: tuple[float, Report] | None = None
        self.draining = False

    def add(self, check: Check) -> None:
        """Ask one dependency more."""
        self._checks.append(check)

    async def report(self) -> Report:
        """The health now. Never raises."""
        if self._answer and self._clock.monotonic() - self._answer[0] < MAX_AGE:
            return self._drained(self._answer[1])
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return self._drained(await asyncio.shield(self._asking))

    def _drained(self, report: Report) -> Report:
        return Report("unavailable", report.components) if self.draining else report

    async def _ask(self) -> Report:
        started = self._clock.monotonic()
        found = await asyncio.gather(*(self._probe(check) for check in self._checks))
        components = {check.name: component for check, component in zip(self._checks, found, strict=True)}
        down = [check for check in self._checks if components[check.name].status == "disconnected"]
        if any(check.critical for check in down):
            report = Report("unavailable", components)
        elif down or any(component.status == "degraded" for component in found):
            report = Report("degraded", components)
        else:
            report = Report("ok", components)
        self._answer = (started, report)
        return report

    async def _probe(self, check: Check) -> Component:
        if check.probe is None:
            return Component("not_configured", check.mode, None, None, None, None)
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT):
                facts = await check.probe()
        except TimeoutError:
            return self._down(check, f"no answer within {TIMEOUT:g} s")
        except KgentsError as error:
            return self._down(check, error.detail)
        except Exception as error:
            return self._down(check, type(error).__name__)
        self._last_ok[check.name] = self._clock.now()
        return Component(
            "degraded" if facts.degraded else "connected",
            check.mode,
            round((self._clock.monotonic() - started) * 1000, 3),
            self._last(check),
            facts.backlog,
            facts.degraded,
        )

    def _down(self, check: Check, why: str) -> Component:
        return Component("disconnected", check.mode, None, self._last(check), None, why)

    def _last(self, check: Check) -> str | None:
        last = self._last_ok.get(check.name)
        return None if last is None else to_rfc3339(last)
