"""Metrics: their text can be read, and their number stays bounded."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kgents.telemetry.metrics import Metrics


def families(metrics: Metrics) -> dict[str, list[tuple[str, dict[str, str], float]]]:
    return {
        family.name: [(sample.name, sample.labels, sample.value) for sample in family.samples]
        for family in text_string_to_metric_families(metrics.expose().decode())
    }


def test_a_request_is_counted_by_route_method_and_status() -> None:
    metrics = Metrics("api")
    metrics.request_started()
    metrics.request_ended("/v1/agents", "GET", 200, 0.01)
    found = families(metrics)
    labels = {"route": "/v1/agents", "method": "GET", "status": "200"}
    assert ("kgents_http_requests_total", labels, 1.0) in found["kgents_http_requests"]
    assert found["kgents_http_requests_in_flight"][0][2] == 0


def test_odd_methods_share_one_label() -> None:
    metrics = Metrics("api")
    for number in range(50):
        metrics.request_started()
        metrics.request_ended("unmatched", f"ODD{number}", 405, 0.001)
    samples = families(metrics)["kgents_http_requests"]
    assert {sample[1]["method"] for sample in samples} == {"OTHER"}


def test_no_metric_names_a_tenant() -> None:
    metrics = Metrics("api")
    metrics.run("wait", "completed", 0.1)
    metrics.tokens(3, 4)
    labels = {label for samples in families(metrics).values() for _, named, _ in samples for label in named}
    assert not {label for label in labels if "tenant" in label or label == "key"}


def test_every_metric_of_ours_has_the_prefix_and_a_help_text() -> None:
    text = Metrics("api").expose().decode()
    helps = [line for line in text.splitlines() if line.startswith("# HELP kgents_")]
    assert len(helps) > 15
    assert all(len(line.split(" ", 3)[3]) > 5 for line in helps)


def value(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(f"kgents_{name}")


@pytest.mark.parametrize(("accepts", "answers", "told"), [(True, True, 1), (True, False, 0), (False, True, 0)])
def test_a_meter_is_connected_while_it_answers_and_takes_what_it_is_sent(
    accepts: bool, answers: bool, told: int
) -> None:
    metrics = Metrics("worker")
    metrics.meter(connected=accepts)
    metrics.meter_answers(answers)
    assert value(metrics, "meter_connected") == told


def test_a_meter_that_was_sent_nothing_yet_is_told_of_by_its_answers() -> None:
    metrics = Metrics("worker")
    metrics.meter_answers(True)
    assert value(metrics, "meter_connected") == 1


def test_a_process_that_sends_no_usage_says_nothing_of_the_meter() -> None:
    assert value(Metrics("api"), "meter_connected") is None


def test_an_outbox_that_can_not_be_asked_is_not_told_as_it_was() -> None:
    metrics = Metrics("api")
    metrics.outbox(3, 4.0)
    metrics.outbox_unknown()
    assert [str(value(metrics, f"outbox_{name}")) for name in ("backlog_messages", "oldest_age_seconds")] == ["nan"] * 2
