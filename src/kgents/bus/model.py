"""The plain types of the bus: what it answers, what it hands out, and its two errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from kgents.errors import Conflict, Unavailable


class BusUnavailable(Unavailable):
    """The bus can't do what was asked now: the server is away, has no such stream, or did not answer in time.

    Nothing is known about a message whose publishing ended so: it may have been stored. Publish it again under the
    same message id. `why` (also `str()`) is for operators, without credentials; `detail` is for everybody.
    """

    code = "bus-unavailable"

    def __init__(self, why: str, *, detail: str | None = None, code: str | None = None) -> None:
        super().__init__(
            detail or "The event bus does not answer. Try again in a few seconds; operators: see /health/saas.",
            code=code,
            headers={"Retry-After": "2"},
        )
        self.why = why

    def __str__(self) -> str:
        return self.why


class WrongLastSequence(Conflict):
    """A message was not stored, because its subject's last message is not the one that its publisher named.

    `actual` is the stream sequence of the subject's last message where the server told it. When it is lower than what
    this publisher was acknowledged before, the server lost the end of the stream in a crash (run events are written
    behind, see docs/decisions/0004-bus.md); when it is higher, somebody else published.
    """

    code = "wrong-last-sequence"

    def __init__(self, subject: str, expected: int, actual: int | None) -> None:
        super().__init__(
            f"The last message on {subject} is {'not' if actual is None else f'{actual}, not'} {expected} as expected: "
            "another publisher wrote to it, or the server lost its end. Read the subject's last message again."
        )
        self.expected = expected
        self.actual = actual


@dataclass(frozen=True, slots=True)
class Ack:
    """The server stored a message. `seq` counts within the stream. `duplicate`: it had been stored before."""

    seq: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class BusState:
    """Whether the bus can be used. `since`: microseconds since the epoch. `error`: why not, without credentials; the
    last failure is kept until the next connection.
    """

    connected: bool
    since: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in a stream. `oldest_age` is in seconds, 0.0 when nothing waits.

    `last` is the sequence of the last message that the stream ever took. Every message before `first` has left it; it
    is `last + 1` when nothing waits. Both begin again in a stream that was made anew.

    `replicas` is how many servers are to keep the stream, `replicas_current` how many have all of it.
    """

    messages: int
    size_bytes: int
    oldest_age: float
    first: int
    last: int
    replicas: int
    replicas_current: int


class Message(NamedTuple):
    """A message that was broadcast."""

    subject: str
    data: bytes
