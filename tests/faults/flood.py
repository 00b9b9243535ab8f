"""A load from a process of its own, at a constant rate or as fast as it is answered: `python -m tests.faults.flood`.

Reads what to do as JSON from its standard input and writes what came of it to its standard output. Every refusal is
looked at, not only counted: what kinds there were is told with how often each came.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from bench import load
from bench.client import Connection
from bench.systems import chat_request


@dataclass(frozen=True, slots=True)
class Order:
    """A load: `rate` requests a second in an open loop (latency from the intended start), or a closed loop where it is
    0, over so many connections, of the tenants with these keys in turn. With `keep` each latency is told.
    """

    url: str
    keys: Sequence[str] = field(repr=False)
    seconds: float
    connections: int
    rate: float = 0.0
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. `rate` is of good answers a second, and `good` counts also those that came after the time was
    over; latencies are in milliseconds; `refusals` are all other answers by status, Retry-After, media type and body,
    with how often each came; `cpu` is the share of a core that the generator took; `latencies` are all of those of good
    answers, where the order says `keep`.
    """

    rate: float
    good: int
    answers: Counter[int]
    p50: float
    p99: float
    refusals: list[tuple[int, str, str, str, int]]
    unanswered: int
    cpu: float
    latencies: list[float]

    @property
    def refused(self) -> int:
        """All other answers."""
        return self.answers.total() - self.answers[200]


class Flood:
    """A generator at work."""

    def __init__(self, order: Order) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.flood"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(order)))
        self._process.stdin.close()
        self._process.stdin = None
        self._longest = order.seconds + load.DRAIN + 60

    def outcome(self) -> Outcome:
        """Wait for its end."""
        try:
            text, _ = self._process.communicate(timeout=self._longest)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        if self._process.returncode:
            raise RuntimeError(f"the generator ended with {self._process.returncode}")
        facts = json.loads(text)
        answers = Counter({int(status): count for status, count in facts.pop("answers").items()})
        return Outcome(answers=answers, refusals=[tuple(kind) for kind in facts.pop("refusals")], **facts)


def flood(*orders: Order) -> list[Outcome]:
    """Apply several loads at once, each from a process of its own."""
    at_work = [Flood(order) for order in orders]
    return [each.outcome() for each in at_work]


class _Looking(Connection):
    """Looks at every answer that is not a good one."""

    good: ClassVar[int] = 0
    kinds: ClassVar[Counter[tuple[int, str, str, str]]] = Counter()

    def __init__(self, done: Any) -> None:
        super().__init__(done)
        self._body = b""
        self._said: dict[bytes, bytes] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self._said[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status != 200:
            after, media = (self._said.get(name, b"").decode() for name in (b"retry-after", b"content-type"))
            self.kinds[status, after, media, self._body.decode()] += 1
        else:
            _Looking.good += 1
        self._body, self._said = b"", {}
        super().on_message_complete()


def main() -> None:
    """Apply the load that the standard input describes."""
    order = Order(**json.load(sys.stdin))
    load.CONNECTION = _Looking
    requests = [chat_request(order.url, key) for key in order.keys]
    common: dict[str, Any] = {"connections": order.connections, "seconds": order.seconds, "warm": 0}
    if order.rate:
        done = load.run(load.at_rate(order.url, requests, rate=order.rate, **common))
    else:
        done = load.run(load.closed(order.url, requests, **common))
    refusals = [(*kind, count) for kind, count in _Looking.kinds.most_common(20)]
    json.dump(
        {
            "rate": done.rate,
            "good": _Looking.good,
            "answers": done.statuses,
            "p50": done.percentile(0.5) * 1000,
            "p99": done.percentile(0.99) * 1000,
            "refusals": refusals,
            "unanswered": done.unanswered,
            "cpu": done.generator / done.seconds,
            "latencies": [seconds * 1000 for seconds in done.latencies] if order.keep else [],
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
