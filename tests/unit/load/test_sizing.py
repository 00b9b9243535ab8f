"""From measurements to the numbers of a deployment."""

from __future__ import annotations

import pytest

from kgents.errors import Unprocessable
from kgents.load import capacity, capacity_report
from kgents.load.simulation import Capacity
from kgents.load.sizing import Demand, propose
from kgents.load.usl import Law
from tests.support.loads import API_COST, API_IDLE, LAW, WORKER_COST, measured, stress


def test_the_cost_of_a_request_is_found_again():
    _, basis = propose(stress(), Demand())

    assert basis["api"]["cpu_per_request"] == pytest.approx(API_COST, rel=1e-3)
    assert basis["api"]["idle"] == pytest.approx(API_IDLE, abs=1e-3)
    assert basis["worker"]["cpu_per_request"] == pytest.approx(WORKER_COST, rel=1e-3)
    assert basis["rate_per_cpu"] == pytest.approx(200 / (API_IDLE + 200 * API_COST), rel=1e-3)


def test_with_several_pods_each_has_its_share():
    document = stress()
    for step in document["steps"]:
        processes = step["processes"]
        half = {**processes["api"], "cores": processes["api"]["cores"] / 2}
        step["processes"] = {"kgents-api-a-1": half, "kgents-api-a-2": half, "kgents-worker-b-1": processes["worker"]}

    _, basis = propose(document, Demand())

    assert basis["api"]["count"] == 2
    assert basis["api"]["cpu_per_request"] == pytest.approx(API_COST, rel=1e-3)
    assert basis["knee"] == 100


def test_a_pod_asks_for_what_it_uses_at_the_knee_and_scales_before_it():
    found, basis = propose(stress(), Demand(expected=100, peak=1000, growth=0.4))

    assert found.api_cpu == 550  # 0.52 cores at 200 requests/s
    assert found.utilization == 70
    assert basis["rate_per_pod"] * 1.4 <= 200 * 1.05
    assert found.least == 2
    assert found.most == 7  # 146 requests/s each
    assert (found.api_memory, found.api_memory_limit) == (192, 288)


def test_the_workers_keep_up_with_the_peak():
    found, _ = propose(stress(), Demand(peak=2000))

    assert found.worker_cpu * found.worker_replicas >= 1000 * (0.01 + 2000 * WORKER_COST)


def test_the_workers_keep_up_also_where_their_cost_is_hardly_known():
    document, noise = stress(), (0.02, -0.02, 0.02, -0.02, 0.0)
    for step, more in zip(document["steps"], noise, strict=True):
        step["processes"]["worker"]["cores"] += more

    found, basis = propose(document, Demand(peak=5000))

    worker = basis["worker"]
    assert worker["error"] > 0.1 * worker["cpu_per_request"]
    most = worker["cpu_per_request"] + 2 * worker["error"]
    assert found.worker_cpu * found.worker_replicas >= 1000 * 5000 * most


@pytest.mark.parametrize(
    ("more", "number"), [({"peak": 5000.0}, "most"), ({"expected": 900.0}, "least"), ({"growth": 1.0}, "most")]
)
def test_more_demand_means_more_pods(more, number):
    assert getattr(propose(stress(), Demand(**more))[0], number) > getattr(propose(stress(), Demand())[0], number)


@pytest.mark.parametrize("change", [{"valid": False}, {"knee": None}])
def test_a_stress_run_that_shows_nothing_is_not_taken(change):
    with pytest.raises(Unprocessable):
        propose(stress() | change, Demand())


def test_the_evidence_has_the_law_the_reasons_and_what_the_simulator_takes():
    found = capacity.conclude(measured(), stress(), Demand())

    assert Law(**found["usl"]["law"]).most == pytest.approx(LAW.most, rel=0.01)
    assert Capacity(**found["simulation"]).request == found["proposal"]["api_cpu"]
    assert len(found["reasoning"]) >= 6


def test_the_evidence_says_again_what_follows_from_it():
    found = capacity.conclude(measured(), stress(), Demand(expected=300))

    assert capacity.conclude(found, found["stress"], Demand(**found["demand"])) == found


@pytest.mark.parametrize("name", ["version", "commit", "modes"])
def test_a_stress_run_of_another_kgents_is_not_taken(name):
    other = stress()
    other["target"][name] = "other"

    with pytest.raises(Unprocessable, match=f"differ in: {name}"):
        capacity.conclude(measured(), other, Demand())


def test_a_stress_run_of_another_machine_is_not_taken_and_the_evidence_keeps_which_it_was():
    with pytest.raises(Unprocessable, match="differ in: machine"):
        capacity.conclude(measured(), stress() | {"machine": {"cores": "64"}}, Demand())

    found = capacity.conclude(measured(), stress(), Demand())
    found["machine"] = {"cores": "64"}
    with pytest.raises(Unprocessable, match="differ in: machine"):
        capacity.conclude(found, found["stress"], Demand())


def test_a_law_that_the_points_refute_gives_no_limit():
    document = measured()
    document["points"][7]["rate"] = 2 * LAW.most

    found = capacity.conclude(document, stress(), Demand())

    assert "No limit follows from the law" in found["reasoning"][0]
    assert f"The most that was measured is {2 * LAW.most:.0f} requests/s" in found["reasoning"][0]
    assert "**It does not describe what was measured: " in capacity_report.markdown(found)


def test_a_law_that_fits_is_called_a_fit():
    found = capacity.conclude(measured(), stress(), Demand())

    assert found["reasoning"][0].endswith("a fit, not a bound.")
    assert "a fit, not a bound" in capacity_report.markdown(found)


def test_the_page_shows_the_points_the_law_and_every_reason():
    found = capacity.conclude(measured(), stress(), Demand())

    page = capacity_report.markdown(found, picture="capacity.png")

    assert all(reason in page for reason in found["reasoning"])
    assert "![capacity](capacity.png)" in page
    assert page.count("| 64 |") == 2


def test_a_peak_below_what_is_expected_is_refused():
    with pytest.raises(Unprocessable, match="5000 requests/s are expected, and the peak is 10"):
        Demand(expected=5000, peak=10)
