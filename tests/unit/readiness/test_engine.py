"""A run: only what was shown is a pass, whatever becomes of the check."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest

from kgents.clock import ManualClock
from kgents.errors import Unavailable
from kgents.readiness.engine import Engine, aged, waived
from kgents.readiness.ledger import Ledger
from kgents.readiness.model import DAY, Broken, Criterion, Found, Graph, NotShown, Result, Track, Verdict
from kgents.readiness.target import Target
from kgents.readiness.waivers import Waiver

TODAY = datetime.date(2023, 11, 14)  # where a ManualClock begins
Outcome = Callable[[Target], Found]


def holds(target: Target) -> Found:
    return Found("as it should be", {"seen": 1, "images": target.images})


def raising(error: Exception) -> Outcome:
    def check(_: Target) -> Found:
        raise error

    return check


class Case:
    """Criteria in one track, run over and over with one ledger."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.ledger = Ledger(folder)
        self.waivers: dict[str, Waiver] = {}
        self.began: list[str] = []
        self.images = ["kgents@sha256:0"]

    def run(self, *criteria: Criterion, only: tuple[str, ...] = (), disrupt: bool = False) -> dict[str, Result]:
        def tell(criterion: Criterion, result: Result | None) -> None:
            if result is None:
                self.began.append(criterion.id)

        target = Target(self.clock, Path(), bytes, context="nowhere", url="http://here", disrupt=disrupt)
        target.__dict__.update(name="here", commit="c0ffee", images=self.images)
        graph = Graph((Track("A", "a"),), criteria)
        return Engine(graph, target, self.ledger, self.waivers, self.clock, tell).run(only)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def criterion(id_: str, check: Outcome = holds, *needs: str, disrupts: bool = False, max_age: int = DAY) -> Criterion:
    return Criterion(id_, id_, "", "", check, needs, disrupts=disrupts, max_age=max_age)


@pytest.mark.parametrize(
    ("check", "verdict"),
    [
        (holds, Verdict.PASS),
        (raising(Broken("it is broken", {"seen": 0})), Verdict.FAIL),
        (raising(NotShown("nobody can tell")), Verdict.UNKNOWN),
        (raising(Unavailable("away")), Verdict.UNKNOWN),
        (raising(KeyError("status")), Verdict.UNKNOWN),
        (raising(TimeoutError()), Verdict.UNKNOWN),
    ],
)
def test_only_what_is_shown_is_a_pass(case: Case, check: Outcome, verdict: Verdict) -> None:
    assert case.run(criterion("A1", check))["A1"].verdict is verdict


@pytest.mark.parametrize("seen", [{"said": b"bytes"}, {1: 1, "one": 1}])
@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (lambda seen: Broken("it is broken.", seen), Verdict.FAIL),
        (lambda seen: Found("as it should be.", seen), Verdict.UNKNOWN),
    ],
)
def test_evidence_that_can_not_be_kept_ends_no_run(
    case: Case, seen: dict[str, object], outcome: Callable[[object], Found | Broken], verdict: Verdict
) -> None:
    def check(_: Target) -> Found:
        found = outcome(seen)
        if isinstance(found, Broken):
            raise found
        return found

    results = case.run(criterion("A1", check), criterion("A2"))
    assert {name: each.verdict for name, each in results.items()} == {"A1": verdict, "A2": Verdict.PASS}
    assert "What was seen could not be kept" in results["A1"].detail


@pytest.mark.parametrize("raised", [Broken("said \ud800", {"said": "\ud800"}), NotShown("said \ud800")])
def test_half_a_character_in_an_answer_ends_no_run(case: Case, raised: Exception) -> None:
    assert case.run(criterion("A1", raising(raised)))["A1"].detail == "said \\ud800"
    assert case.ledger.verify() == 1


def test_what_needs_something_that_does_not_hold_is_unknown_and_is_not_checked(case: Case) -> None:
    results = case.run(criterion("A1", raising(Broken("no"))), criterion("A2", raising(AssertionError()), "A1"))
    assert results["A2"].verdict is Verdict.UNKNOWN
    assert "A1" in results["A2"].detail


def test_one_alone_is_checked_with_what_it_needs(case: Case) -> None:
    results = case.run(criterion("A1"), criterion("A2", holds, "A1"), criterion("A3"), only=("A2",))
    assert set(results) == {"A1", "A2"}


def test_what_disrupts_comes_last_and_only_where_it_was_asked_for(case: Case) -> None:
    criteria = (criterion("A1", disrupts=True), criterion("A2"), criterion("A3", holds, "A2"))
    assert case.run(*criteria)["A1"].verdict is Verdict.UNKNOWN
    case.began.clear()
    assert case.run(*criteria, disrupt=True)["A1"].verdict is Verdict.PASS
    assert case.began[-1] == "A1"


def test_what_disrupted_counts_until_it_is_too_old(case: Case) -> None:
    breaking = criterion("A1", disrupts=True, max_age=3 * DAY)
    case.run(breaking, disrupt=True)
    case.clock.advance(2 * 86_400)
    young = case.run(breaking)["A1"]
    assert (young.verdict, young.earlier) == (Verdict.PASS, True)
    case.clock.advance(2 * 86_400)
    old = case.run(breaking)["A1"]
    assert old.verdict is Verdict.UNKNOWN
    assert "96 hours old" in old.detail


def test_what_disrupted_counts_for_the_images_that_it_was_shown_of(case: Case) -> None:
    breaking = criterion("A1", disrupts=True)
    case.run(breaking, disrupt=True)
    case.images = ["kgents@sha256:1"]
    found = case.run(breaking)["A1"]
    assert found.verdict is Verdict.UNKNOWN
    assert "other images" in found.detail


def test_what_disrupted_counts_though_a_later_run_could_not_look(case: Case) -> None:
    breaking = criterion("A2", holds, "A1", disrupts=True)
    case.run(criterion("A1"), breaking, disrupt=True)
    case.run(criterion("A1", raising(NotShown("away"))), breaking)

    assert case.run(criterion("A1"), breaking)["A2"].verdict is Verdict.PASS


def test_what_disrupted_and_failed_stays_failed(case: Case) -> None:
    case.run(criterion("A1", raising(Broken("no")), disrupts=True), disrupt=True)
    case.clock.advance(300 * 86_400)
    assert case.run(criterion("A1", disrupts=True))["A1"].verdict is Verdict.FAIL


@pytest.mark.parametrize("age", [-2 * 60, 86_401])
def test_recorded_evidence_that_is_old_or_of_the_future_is_unknown(case: Case, age: int) -> None:
    def recorded(target: Target) -> Found:
        return Found("it did", {}, time=target.clock.now() - age * 1_000_000, commit="abc")

    assert case.run(criterion("A1", recorded))["A1"].verdict is Verdict.UNKNOWN


def test_evidence_names_its_own_time_and_commit(case: Case) -> None:
    def recorded(target: Target) -> Found:
        return Found("it did", {}, time=target.clock.now() - 1_000_000, commit="abc")

    result = case.run(criterion("A1", recorded))["A1"]
    assert (result.time, result.commit) == (case.clock.now() - 1_000_000, "abc")
    assert case.run(criterion("A1"))["A1"].commit == "c0ffee"


def waiver(until: datetime.date) -> Waiver:
    return Waiver("A1", "Kong comes next month", "ops", until)


@pytest.mark.parametrize("error", [Broken("no"), NotShown("nobody can tell")])
def test_what_someone_answers_for_is_waived(case: Case, error: Exception) -> None:
    case.waivers["A1"] = waiver(TODAY)
    result = case.run(criterion("A1", raising(error)))["A1"]
    assert result.verdict is Verdict.WAIVED
    assert "Kong comes next month (ops, until 2023-11-14)" in result.detail


def test_a_waiver_that_has_ended_waives_nothing(case: Case) -> None:
    case.waivers["A1"] = waiver(TODAY - datetime.timedelta(days=1))
    result = case.run(criterion("A1", raising(Broken("no"))))["A1"]
    assert result.verdict is Verdict.FAIL
    assert "ended on 2023-11-13" in result.detail


def test_a_pass_needs_no_waiver(case: Case) -> None:
    case.waivers["A1"] = waiver(TODAY)
    assert case.run(criterion("A1"))["A1"].verdict is Verdict.PASS


def test_what_needs_something_waived_is_checked(case: Case) -> None:
    case.waivers["A1"] = waiver(TODAY)
    results = case.run(criterion("A1", raising(Broken("no"))), criterion("A2", holds, "A1"))
    assert results["A2"].verdict is Verdict.PASS


def test_the_ledger_keeps_what_was_found_and_not_that_it_was_waived(case: Case) -> None:
    case.waivers["A1"] = waiver(TODAY)
    case.run(criterion("A1", raising(Broken("no"))))
    kept = case.ledger.latest("here")["A1"]
    assert kept.verdict is Verdict.FAIL
    assert waived(kept, case.waivers, case.clock.now()).verdict is Verdict.WAIVED


def test_a_failure_does_not_age(case: Case) -> None:
    result = Result("A1", Verdict.FAIL, "no", case.clock.now() - 9 * DAY, "")
    assert aged(criterion("A1"), result, case.clock.now()) == result
