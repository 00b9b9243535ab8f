"""How a load test shows how far it is, on a terminal and elsewhere."""

from __future__ import annotations

import sys

import pytest

from kgents.cli.load_progress import LINES, ended, said, shown
from kgents.load.measured import Counts
from kgents.load.profiles import Step
from kgents.load.run import Watcher
from tests.support.loads import step

FOUND = step(200.0, achieved=198.5, errors=3)
ENDED = "step: 198.5 requests/s of 200 offered; p50 5 ms, p99 20 ms; first token p50 5 ms, p99 20 ms; 3 errors\n"


def counts() -> Counts:
    found = Counts()
    for latency in (0.004, 0.006, 0.008):
        found.add(200, latency)
    found.add(503, 0.001)
    return found


def watched(watcher: Watcher) -> None:
    """A step that two looks fell into, one of them too early for a line."""
    watcher.begin(Step("first", 200, 30))
    watcher.tell(LINES - 1, counts())
    watcher.tell(LINES, counts())
    watcher.tell(LINES + 1, counts())
    watcher.end(FOUND)


def test_elsewhere_it_is_a_line_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with shown() as watcher:
        watched(watcher)
        watcher.begin(Step("users", 0, 4))

    assert capsys.readouterr() == (
        "",
        "first: 200 requests/s for 30 s\n"
        "first: 5 of 30 s, 3 answered, 1 errors, p50 6.0 ms\n" + ENDED + "users: closed loop for 4 s\n",
    )


def test_each_step_begins_to_count_anew(capsys: pytest.CaptureFixture[str]) -> None:
    with shown() as watcher:
        watched(watcher)
        watched(watcher)

    assert capsys.readouterr().err.count("first: 5 of 30 s") == 2


def test_on_a_terminal_it_is_a_bar_and_only_what_came_of_the_steps_stays(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")  # less than what came of a step has, which is not wrapped

    with shown() as watcher:
        watched(watcher)
        watched(watcher)

    assert capsys.readouterr().err.count(ENDED) == 2


def test_the_median_is_of_what_came_since_it_was_last_said() -> None:
    found = counts()

    assert said(found) == "3 answered, 1 errors, p50 6.0 ms"
    assert said(found) == "3 answered, 1 errors"
    found.add(200, 0.1)
    assert said(found) == "4 answered, 1 errors, p50 100.0 ms"


def test_what_was_not_measured_is_not_told() -> None:
    assert ended(FOUND | {"offered": 0.0, "first_token_ms": {}}) == (
        "step: 198.5 requests/s; p50 5 ms, p99 20 ms; 3 errors"
    )
