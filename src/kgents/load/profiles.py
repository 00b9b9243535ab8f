"""The courses that a load can take, and the search for the knee."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

STREAMS = 0.15  # of the requests
SPIKE = 5  # times the rate
FACTOR = 1.5  # from a rate to the next higher one in the search
CLOSE = 1.12  # between the best rate and the worst one where the search ends
MOST_STEPS = 24
MOST_ERRORS = 0.001  # of the requests


class Name(StrEnum):
    """A profile."""

    SMOKE = "smoke"
    BASELINE = "baseline"
    STRESS = "stress"
    SPIKE = "spike"
    SOAK = "soak"
    STREAMS = "streams"
    PHASE7 = "phase7"


_CONSTANT = {
    Name.SMOKE: ("a few seconds, to see that all works", 20, 5),
    Name.BASELINE: ("a constant rate", 100, 60),
    Name.STRESS: ("rates that rise until the target is missed: the knee", 50, 8),
    Name.SOAK: ("a constant rate for long: what grows, leaks or fills up", 50, 3600),
    Name.STREAMS: ("streams only, for their time to first token", 20, 30),
}
"""What each is, requests a second, and seconds."""


@dataclass(frozen=True, slots=True)
class Step:
    """`rate` requests a second for `seconds`."""

    name: str
    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Profile:
    """What load comes when. `streams` is the share of requests that are streams.

    Open loop, unless there are `users`: then each sends its next request `wait` seconds after the answer to its last.
    `searches`: the steps' rates follow from what came of the earlier ones, from the first step's on.
    """

    name: Name
    about: str
    steps: Sequence[Step]
    streams: float = STREAMS
    searches: bool = False
    users: int = 0
    wait: float = 0.0


def profile(name: Name, rate: float = 0.0, seconds: float = 0.0) -> Profile:
    """A profile, with its usual rate (1/s) and length (s) unless others are given; a spike's are its calm parts'."""
    if name is Name.SPIKE:
        calm, length = rate or 50, seconds or 15
        steps = [Step("before", calm, length), Step("spike", SPIKE * calm, length), Step("after", calm, length)]
        return Profile(name, "five times the rate, at once, and back", steps)
    if name is Name.PHASE7:
        about = "closed loop: 50 users that wait 100 ms after each answer"
        return Profile(name, about, [Step(name, 0, seconds or 30)], streams=0.0, users=50, wait=0.1)
    about, usual_rate, usual_seconds = _CONSTANT[name]
    steps = [Step(name, rate or usual_rate, seconds or usual_seconds)]
    share = 1.0 if name is Name.STREAMS else STREAMS
    return Profile(name, about, steps, share, searches=name is Name.STRESS)


def meets(found: dict[str, Any], target_ms: float) -> bool:
    """Whether a step met the target: the 99th percentiles of latency and of streams' first tokens within `target_ms`,
    counted from the intended start, and at most one error in a thousand. So nearly all was answered in its time.
    """
    slowest = [found[name].get("p99") for name in ("latency_ms", "first_token_ms")]
    return (
        any(value is not None for value in slowest)
        and all(value is None or value <= target_ms for value in slowest)
        and found["errors"] <= MOST_ERRORS * found["requests"]
    )


def next_rate(found: Sequence[dict[str, Any]]) -> float | None:
    """The rate of the search's next step after those `found`, or None when it is over: up by half until the target is
    missed, then between the best and the worst until they are within 12 %. A rate that missed it is tried once more,
    since a moment of something else's, such as of the disk, is no knee.
    """
    last = found[-1]
    if not last["met"] and not any(step["offered"] == last["offered"] for step in found[:-1]):
        return float(last["offered"])
    met = {float(step["offered"]) for step in found if step["met"]}
    missed = {float(step["offered"]) for step in found} - met
    if len(found) >= MOST_STEPS or (missed and min(missed) < 1):
        return None
    if not missed:
        return round(max(met) * FACTOR, 1)
    if not met:
        return round(min(missed) / FACTOR**2, 1)
    best, worst = max(met), min(missed)
    return None if worst <= best * CLOSE else round((best * worst) ** 0.5, 1)
