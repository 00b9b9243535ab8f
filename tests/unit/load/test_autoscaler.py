"""The autoscaler's decisions, as Kubernetes' documentation gives them."""

from __future__ import annotations

import copy
import functools
import operator
from typing import Any

import pytest

from kgents.load.autoscaler import Autoscaler, Metric, Pod, Policy, Rules, Settings, thousandths

LONG_AGO = -10_000.0
CPU = Metric("cpu", 70)


def pods(*cpu: int | None, now: float = 0.0, request: int = 1000) -> list[Pod]:
    """Pods that have been ready for a long time and use so much CPU; None has no sample."""
    return [
        Pod(f"pod-{n}", request, LONG_AGO, True, LONG_AGO, {} if used is None else {"cpu": used}, now)
        for n, used in enumerate(cpu)
    ]


def decided(seen: list[Pod], *, current: int | None = None, **settings) -> int:
    return Autoscaler(Settings(1, 100, [CPU], **settings)).look(0.0, current or len(seen), seen)


def test_replicas_follow_the_ratio_of_use_and_target_rounded_up():
    assert decided(pods(1400, 1400)) == 4
    assert decided(pods(710, 900, 900)) == 4  # 83 % of 70 %: 3.57


@pytest.mark.parametrize(("used", "replicas"), [(770, 10), (780, 12), (630, 10)])
def test_a_tenth_more_or_less_than_the_target_changes_nothing(used: int, replicas: int):
    assert decided(pods(*[used] * 10)) == replicas


def test_without_a_sample_of_any_pod_nothing_changes():
    assert decided(pods(None, None)) == 2


def test_a_pod_without_a_sample_counts_as_idle_when_there_are_to_be_more():
    assert decided(pods(1400, 1400, None)) == 4


def test_a_pod_without_a_sample_counts_as_busy_when_there_are_to_be_fewer():
    seen = pods(100, 100, 100, None)
    assert decided(seen, down=Rules(0, (Policy("Percent", 100, 15),))) == 2


def test_what_is_taken_for_granted_never_turns_the_direction():
    assert decided(pods(800, None, None, None)) == 4


@pytest.mark.parametrize("name", ["pending", "starting"])
def test_a_pod_that_is_not_ready_yet_counts_as_idle_when_there_are_to_be_more(name: str):
    new = Pod("new", 1000, -20.0, False, -20.0, {"cpu": 1000}, 0.0, pending=name == "pending")
    assert decided([*pods(1400, 1400), new]) == 4


def test_the_cpu_of_a_pods_start_does_not_count():
    new = Pod("new", 1000, -20.0, True, -10.0, {"cpu": 5000}, 0.0)
    assert decided([*pods(700, 700), new]) == 3


def test_a_pod_that_leaves_does_not_count():
    leaving = Pod("old", 1000, LONG_AGO, True, LONG_AGO, {"cpu": 5000}, leaving=True)
    assert decided([*pods(700, 700), leaving], current=2) == 2


def test_the_metric_that_asks_for_most_decides():
    seen = [pod_with(cpu=700, runs=30_000), pod_with(cpu=700, runs=30_000, name="other")]
    assert Autoscaler(Settings(1, 100, [CPU, Metric("runs", 10_000)])).look(0.0, 2, seen) == 6


def test_without_one_of_the_metrics_nothing_is_taken_away():
    settings = Settings(1, 100, [CPU, Metric("runs", 10_000)], down=Rules(0, (Policy("Percent", 100, 15),)))
    seen = [pod_with(cpu=100), pod_with(cpu=100, name="other"), pod_with(cpu=100, name="third")]
    alone = Autoscaler(Settings(1, 100, [CPU], down=settings.down))
    assert alone.look(0.0, 3, seen) == 1
    # The runs' samples are missing for all pods, so their metric says nothing.
    assert Autoscaler(settings).look(0.0, 3, seen) == 3


def pod_with(name: str = "pod", **values: int) -> Pod:
    return Pod(name, 1000, LONG_AGO, True, LONG_AGO, values)


def test_by_default_it_doubles_or_adds_four_in_fifteen_seconds():
    autoscaler = Autoscaler(Settings(1, 100, [CPU]))
    assert autoscaler.look(0.0, 2, pods(10_000, 10_000)) == 6
    assert autoscaler.look(5.0, 6, pods(*[10_000] * 6)) == 6
    assert autoscaler.look(15.0, 6, pods(*[10_000] * 6)) == 12


def test_the_least_of_policies_can_be_chosen():
    rules = Rules(0, (Policy("Pods", 4, 15), Policy("Percent", 50, 15)), "Min")
    assert decided(pods(10_000, 10_000), up=rules) == 3


def test_a_direction_can_be_forbidden():
    assert decided(pods(10, 10, 10), down=Rules(0, (Policy("Percent", 100, 15),), "Disabled")) == 3


def test_it_shrinks_only_to_the_highest_of_five_minutes():
    autoscaler = Autoscaler(Settings(1, 100, [CPU]))
    assert autoscaler.look(0.0, 4, pods(*[700] * 4)) == 4
    assert autoscaler.look(15.0, 4, pods(*[100] * 4)) == 4
    assert autoscaler.look(299.0, 4, pods(*[100] * 4)) == 4
    assert autoscaler.look(301.0, 4, pods(*[100] * 4)) == 1


def test_it_stays_between_least_and_most():
    autoscaler = Autoscaler(Settings(2, 3, [CPU], down=Rules(0, (Policy("Percent", 100, 15),))))
    assert autoscaler.look(0.0, 2, pods(9000, 9000)) == 3
    assert autoscaler.look(20.0, 3, pods(1, 1, 1)) == 2
    assert autoscaler.look(40.0, 7, pods(*[1] * 7)) == 3
    assert autoscaler.look(60.0, 1, pods(700)) == 2


def test_a_deployment_that_was_scaled_to_nothing_stays_there():
    assert Autoscaler(Settings(2, 10, [CPU])).look(0.0, 0, []) == 0


SPEC: dict[str, Any] = {
    "minReplicas": 2,
    "maxReplicas": 10,
    "metrics": [
        {
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
        },
        {
            "type": "Pods",
            "pods": {
                "metric": {"name": "kgents_runs"},
                "target": {"type": "AverageValue", "averageValue": "20"},
            },
        },
    ],
    "behavior": {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
        },
        "scaleDown": {"stabilizationWindowSeconds": 120, "selectPolicy": "Min"},
    },
}


def test_the_settings_of_a_manifest():
    manifest = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": SPEC}

    assert Settings.parse(manifest) == Settings(
        2,
        10,
        [Metric("cpu", 70), Metric("kgents_runs", 20_000)],
        Rules(0, [Policy("Percent", 100, 15)]),
        Rules(120, (Policy("Percent", 100, 15),), "Min"),
    )


@pytest.mark.parametrize("manifest", [{}, {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler"}])
def test_another_manifest_is_refused(manifest: dict):
    with pytest.raises(ValueError, match="autoscaling/v2"):
        Settings.parse(manifest)


@pytest.mark.parametrize(
    ("quantity", "number"), [("250m", 250), ("2", 2000), (3, 3000), ("1.5", 1500), ("2k", 2_000_000)]
)
def test_quantities(quantity: str | int, number: int):
    assert thousandths(quantity) == number


@pytest.mark.parametrize("quantity", ["much", "1e999"])
def test_what_is_no_quantity_is_refused(quantity: str):
    with pytest.raises(ValueError, match="quantity"):
        thousandths(quantity)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("minReplicas",), 0),
        (("maxReplicas",), 1),
        (("maxReplicas",), "x"),
        (("metrics", 0, "resource", "target", "averageUtilization"), 0),
        (("metrics", 1, "pods", "target", "averageValue"), "0"),
        (("behavior", "scaleUp", "stabilizationWindowSeconds"), -1),
        (("behavior", "scaleUp", "selectPolicy"), "Best"),
        (("behavior", "scaleUp", "tolerance"), "nan"),
        (("behavior", "scaleUp", "policies", 0, "type"), "Pod"),
        (("behavior", "scaleUp", "policies", 0, "value"), 0),
        (("behavior", "scaleUp", "policies", 0, "periodSeconds"), 1.5),
    ],
    ids=str,
)
def test_a_value_that_kubernetes_would_refuse_is_refused(path: tuple[str | int, ...], value: object):
    found = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": copy.deepcopy(SPEC)}
    Settings.parse(found)
    *way, last = path
    functools.reduce(operator.getitem, way, found["spec"])[last] = value

    with pytest.raises(ValueError, match=str(last)):
        Settings.parse(found)
