"""Each criterion can fail: a test breaks what it is about, and sees that."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from kgents.readiness.criteria import GRAPH

ROOT = Path(__file__).parents[3]

UNIT, SERVICE, CLUSTER = "tests/unit/readiness", "tests/integration/readiness", "tests/cluster/test_ready.py"
INSTALLED = f"{UNIT}/test_cluster_checks.py::test_what_is_not_is_a_fail"
UNDER_LOAD = f"{UNIT}/test_cluster_checks.py::test_a_request_that_failed_meanwhile_is_a_fail"
RECORDED = f"{UNIT}/test_recorded.py::test_what_went_wrong_is_a_fail"
BROKEN = f"{CLUSTER}::test_what_is_broken_is_a_fail"

BREAKS = {
    "A1": f"{CLUSTER}::test_a_workload_that_is_away_is_a_fail_and_what_needs_it_is_unknown",
    "A2": f"{SERVICE}/test_service.py::test_a_health_page_that_is_ok_without_the_bus_is_a_fail",
    "A3": f"{SERVICE}/test_service.py::test_a_meter_that_counts_nothing_is_seen",
    "A4": f"{SERVICE}/test_gateway.py::test_what_is_not_kgents_behind_a_gateway_is_a_fail",
    "A5": f"{SERVICE}/test_gateway.py::test_another_gateway_is_not_taken_for_kong",
    "A6": INSTALLED,
    "A7": UNDER_LOAD,
    "A8": UNDER_LOAD,
    "B1": INSTALLED,
    "B2": f"{SERVICE}/test_observed.py::test_other_retention_is_a_fail",
    "B3": f"{SERVICE}/test_observed.py::test_a_line_that_never_comes_is_a_fail",
    "B4": f"{SERVICE}/test_observed.py::test_a_panel_that_does_not_return_the_line_is_a_fail",
    "C1": BROKEN,
    "C2": RECORDED,
    "D1": RECORDED,
    "D2": BROKEN,
    "D3": BROKEN,
    "D4": BROKEN,
    "D5": f"{SERVICE}/test_gateway.py::test_one_that_ends_or_is_of_another_host_is_a_fail",
    "D6": f"{SERVICE}/test_service.py::test_a_way_in_that_lends_its_own_key_is_seen",
    "D7": f"{SERVICE}/test_service.py::test_a_way_in_that_mixes_tenants_up_is_seen",
    "D8": INSTALLED,
    "L1": BROKEN,
    "L2": RECORDED,
    "L3": INSTALLED,
    "L4": RECORDED,
    "L5": f"{SERVICE}/test_observed.py::test_an_alert_that_is_missing_or_errs_is_a_fail",
    "L6": f"{SERVICE}/test_observed.py::test_an_alert_without_a_section_is_a_fail",
    "L7": f"{UNIT}/test_cluster_checks.py::test_a_difference_that_stays_is_a_fail",
    "L8": f"{UNIT}/test_cluster_checks.py::test_an_invoice_that_differs_is_a_fail",
}


def test_every_criterion_has_a_test_that_breaks_it() -> None:
    assert list(BREAKS) == [criterion.id for criterion in GRAPH.criteria]


@pytest.mark.parametrize("criterion", BREAKS)
def test_it_is_there_and_is_about_the_criterion(criterion: str) -> None:
    path, _, name = BREAKS[criterion].partition("::")
    text = (ROOT / path).read_text()
    assert name in {node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    check = GRAPH.get(criterion).check
    called = f"{check.__module__.rpartition('.')[2]}.{check.__name__}"
    assert f'"{criterion}"' in text or called in text
