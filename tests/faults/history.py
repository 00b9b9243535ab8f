"""What the clients of a fault test did and saw: one line a request, written as it ends, read by the checker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import orjson

Outcome = Literal["ok", "refused", "unknown"]


@dataclass(frozen=True, slots=True)
class Call:
    """A request of a client, with all its retries.

    `unknown` is one whose answer never came: it may have been carried out or not. Of one that is `ok`, `run` and the
    tokens are as the answer told them; a run in the background tells no tokens before its end. Moments are seconds of
    one monotonic clock.
    """

    name: str
    outcome: Outcome
    status: int
    sent: float
    ended: float
    tries: int
    run: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None


class History:
    """The file, and the moments of the good answers so far."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self.path = path
        self.good: list[float] = []

    def add(self, call: Call) -> None:
        """Note a request that has ended."""
        self._file.write(orjson.dumps(asdict(call)) + b"\n")
        if call.outcome == "ok":
            self.good.append(call.ended)

    def close(self) -> None:
        """Nothing more is noted."""
        self._file.close()


def read(path: Path) -> Iterator[Call]:
    """The requests of a history."""
    with path.open("rb") as file:
        for line in file:
            yield Call(**orjson.loads(line))
