"""Two servers under the same load, turn by turn, so that a busy neighbour on the machine meets both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench import load, machine
from bench.load import Load
from bench.report import Scale, Table, median, spread

CONNECTIONS = (32, 64)


def nothing() -> None:
    """What to wait for where there is nothing to wait for."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A server, the requests that it is sent in turn, and its processes: what each costs is told by name. `settled`
    returns once it has done what it does after its answers, so that the other's turn is its own.
    """

    name: str
    url: str
    requests: Sequence[bytes]
    pids: Mapping[str, int]
    settled: Callable[[], None] = nothing


@dataclass(slots=True)
class Saturation:
    """Closed loops over one contender: per number of connections its runs in order, and its processes' CPU time."""

    runs: dict[int, list[Load]] = field(default_factory=lambda: {number: [] for number in CONNECTIONS})
    cpu: dict[str, float] = field(default_factory=dict)
    answered: int = 0

    def best(self) -> list[float]:
        """The rate of each turn, at the number of connections that it was best with."""
        return [max(run.rate for run in turn) for turn in zip(*self.runs.values(), strict=True)]

    def cpu_ms(self, process: str) -> float:
        """The CPU time of one process for one answer, in milliseconds."""
        return 1000 * self.cpu[process] / max(1, self.answered)

    def facts(self) -> dict[str, object]:
        """As JSON."""
        return {
            "runs": {number: [run.facts() for run in runs] for number, runs in self.runs.items()},
            "cpu_ms": {process: round(self.cpu_ms(process), 3) for process in self.cpu},
        }


def saturate(contenders: Sequence[Contender], scale: Scale, seconds: float = 8.0) -> list[Saturation]:
    """What each can do at most. Every other turn goes backwards, so that a machine that becomes slower or quicker does
    so for all alike.
    """
    found = [Saturation() for _ in contenders]
    for turn in range(scale.repeats):
        pairs = list(zip(contenders, found, strict=True))
        for contender, result in reversed(pairs) if turn % 2 else pairs:
            for number in CONNECTIONS:
                before = {name: machine.cpu(pid) for name, pid in contender.pids.items()}
                warm = 1.0
                run = load.run(
                    load.closed(
                        contender.url, contender.requests, connections=number, seconds=scale.seconds(seconds), warm=warm
                    )
                )
                contender.settled()
                result.runs[number].append(run)
                # The settling is part of the work; the answers of the warm-up are too.
                result.answered += round(run.rate * (run.seconds + warm))
                for name, pid in contender.pids.items():
                    result.cpu[name] = result.cpu.get(name, 0.0) + machine.cpu(pid) - before[name]
    return found


def ratios(mine: Saturation, theirs: Saturation) -> list[float]:
    """My rate by theirs, turn by turn."""
    return [one / other for one, other in zip(mine.best(), theirs.best(), strict=True)]


def at_rate(
    contenders: Sequence[Contender], rate: float, scale: Scale, seconds: float = 20.0, repeats: int = 0
) -> list[list[Load]]:
    """An open loop over each in turn; answers the runs of each."""
    found: list[list[Load]] = [[] for _ in contenders]
    for _ in range(repeats or scale.repeats):
        for contender, runs in zip(contenders, found, strict=True):
            runs.append(
                load.run(load.at_rate(contender.url, contender.requests, rate=rate, seconds=scale.seconds(seconds)))
            )
            contender.settled()
    return found


HEAD = ["", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "errors"]


def row(name: str, runs: Sequence[Load]) -> list[str]:
    """A row of a table: medians of the runs, with the spread of the rate."""

    def latency(share: float) -> str:
        return f"{median([run.percentile(share) for run in runs]) * 1000:.1f}"

    errors = sum(run.errors for run in runs)
    return [name, spread([run.rate for run in runs]), latency(0.5), latency(0.99), latency(0.999), str(errors)]


def saturation_table(contenders: Sequence[Contender], found: Sequence[Saturation]) -> Table:
    """Closed loops, a row for each contender and number of connections."""
    rows = [
        row(f"{contender.name}, {number} connections", result.runs[number])
        for contender, result in zip(contenders, found, strict=True)
        for number in CONNECTIONS
    ]
    return Table(["closed loop", *HEAD[1:]], rows)


def cpu_table(contenders: Sequence[Contender], found: Sequence[Saturation]) -> Table:
    """What each process takes for one answer at saturation."""
    rows = [
        [f"{contender.name}: {process}", f"{result.cpu_ms(process):.3f}"]
        for contender, result in zip(contenders, found, strict=True)
        for process in result.cpu
    ]
    return Table(["process", "CPU ms for a request, all told"], rows)
