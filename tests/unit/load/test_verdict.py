"""When a run may be believed."""

from __future__ import annotations

import pytest

from kgents.load.verdict import points, reasons
from tests.support.loads import health, look, measured, report, step, stress


def codes(document, **expected):
    return [reason.code for reason in reasons(document, expected)]


def used(**cores):
    return step(generator={"driver_cores": 0.1, "vegeta_cores": 0.1, "other_programs_cores": 0.1} | cores)


def test_a_run_in_which_all_went_well_is_believed():
    assert codes(report()) == []
    assert codes(stress()) == []


def test_slow_answers_and_errors_are_results_and_no_reason():
    assert codes(report(step(met=False, errors=50, latency_ms={"p99": 9000.0}))) == []


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (report(step(sent=98.0)), "generator-rate"),
        (report(step(late_ms={"p99": 30.0})), "generator-late"),
        (report(used(vegeta_cores=1.7)), "generator-cpu"),
        (report(used(driver_cores=0.9)), "generator-cpu"),
        (report(used(other_programs_cores=0.6)), "noise"),
        (report(step(unwell=[["meter", "disconnected"]])), "integration"),
        (report(backlog=12), "integration"),
        (report(backlog=None), "integration"),
        (report(after=look(version="0.2.0")), "version"),
        (report(after=look(processes={"api": "pid 7", "worker": "pid 99"})), "process"),
        (report(after=look(processes={"api": "pid 7"})), "process"),
        (report(before=look(processes={}), after=look(processes={})), "process"),
    ],
)
def test_a_run_is_refused(document, code):
    assert codes(document) == [code]


@pytest.mark.parametrize("name", ["sql", "nats", "meter"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("status", ["disconnected", "not_configured", "degraded"])
def test_an_integration_that_is_not_connected_is_a_reason(name, when, status):
    found = reasons(report(**{when: look(health=health(**{name: status}))}), {})

    assert f"{name} was {status} {when} the run" in [reason.text for reason in found]


def test_what_the_health_page_does_not_tell_of_is_no_integration():
    empty = look(health={"status": "ok", "components": {}})

    assert codes(report(before=empty)) == ["integration"] * 3


def test_a_closed_loop_is_never_a_capacity():
    profile = {"name": "phase7", "searches": False, "users": 50, "wait": 0.1}
    found = reasons(report(profile=profile), {})

    assert [reason.code for reason in found] == ["closed-loop"]
    assert "500 requests/s" in found[0].text


@pytest.mark.parametrize(
    ("expected", "code"),
    [({"version": "0.2.0"}, "version"), ({"commit": "ba9876543210"}, "commit"), ({"mode": "external"}, "integration")],
)
def test_a_target_that_is_not_what_it_was_told_to_be(expected, code):
    assert set(codes(report(), **expected)) == {code}


def test_a_target_that_is_what_it_was_told_to_be():
    assert codes(report(), version="0.1.0", commit="0123456", mode="embedded") == []


def test_an_unknown_commit_is_not_the_expected_one():
    document = report()
    document["target"]["commit"] = "unknown"

    assert codes(document, commit="0123456789ab") == ["commit"]


def test_changes_that_are_not_committed_are_not_the_expected_commit():
    document = report()
    document["target"]["commit"] = "0123456789ab+"

    assert codes(document, commit="0123456789ab") == ["commit"]


def test_of_a_search_only_the_steps_that_decide_are_looked_at():
    document = stress()
    far = step(900.0, met=False, sent=500.0, unwell=[["the health page", "unreachable"]])

    assert codes({**document, "steps": [*document["steps"], far]}) == []
    assert codes({**document, "steps": [*document["steps"][:-1], far]}) == ["integration", "generator-rate"]


def test_late_starts_do_not_matter_beside_a_latency_that_is_much_longer():
    assert codes(report(step(late_ms={"p99": 30.0}, latency_ms={"p99": 400.0}))) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"errors": 3}, "errors"),
        ({"generator": {"driver_cores": 0.1, "vegeta_cores": 1.7, "other_programs_cores": 0.1}}, "generator-cpu"),
        ({"generator": {"driver_cores": 0.9, "vegeta_cores": 0.1, "other_programs_cores": 0.1}}, "generator-cpu"),
        ({"unwell": [["nats", "degraded"]]}, "integration"),
        ({"backlog": 5}, "integration"),
        ({"backlog": None}, "integration"),
    ],
)
def test_one_point_of_a_capacity_that_can_not_be_believed_is_enough(change, code):
    document = measured()
    assert points(document) == []
    document["points"][3] |= change

    assert [(reason.code, "with 8 at once" in reason.text) for reason in points(document)] == [(code, True)]
