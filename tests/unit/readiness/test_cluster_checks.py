"""What the checks make of a cluster's objects. tests/cluster asks a real one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kgents.clock import SECOND, ManualClock, to_rfc3339
from kgents.deploy.health import WayIn
from kgents.deploy.kubectl import Refused
from kgents.readiness.checks import cluster, disruptive
from kgents.readiness.model import Broken, Found, NotShown
from kgents.readiness.target import Target, Tenant

CLOCK = ManualClock()
SPACE = "kgents-agents"
Objects = dict[str, list[dict[str, Any]]]


class Held:
    """A cluster that holds these objects, by kind."""

    def __init__(self, objects: Objects, answers: list[Any] | None = None) -> None:
        self.objects = objects
        self.answers = answers
        self.deleted: list[str] = []

    def list(self, kind: str, _namespace: str, selector: str = "") -> list[dict[str, Any]]:
        wanted = dict(part.split("=") for part in selector.split(",")) if selector else {}
        return [each for each in self.objects.get(kind, ()) if wanted.items() <= each["metadata"]["labels"].items()]

    def everywhere(self, kind: str) -> list[dict[str, Any]]:
        return self.list(kind, "")

    def get(self, kind: str, _namespace: str, name: str) -> dict[str, Any] | None:
        return next((each for each in self.objects.get(kind, ()) if each["metadata"]["name"] == name), None)

    def delete(self, _kind: str, _namespace: str, name: str) -> None:
        self.deleted.append(name)

    def restart(self, _namespace: str, _what: str) -> None:
        pass

    def execute(self, *_: Any) -> Any:
        if not self.answers:
            raise Refused("no pod")
        return self.answers.pop(0)


def target(objects: Objects, answers: list[Any] | None = None) -> Target:
    made = Target(CLOCK, Path(), bytes)
    made.__dict__["kubectl"] = Held(objects, answers)
    return made


def workload(kind: str, name: str, ready: int = 2, wanted: int = 2) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": name}
    counts = {"replicas": ready, "updatedReplicas": ready, "availableReplicas": ready, "readyReplicas": ready}
    return {
        "kind": kind,
        "metadata": {"name": name, "generation": 1, "labels": labels},
        "spec": {
            "replicas": wanted,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"image": "kgents@sha256:0"}]}},
        },
        "status": {"observedGeneration": 1, **counts},
    }


def pod(app: str, node: str, image: str = "kgents@sha256:0", **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{app}-{node}", "labels": {"app.kubernetes.io/name": app}, **metadata},
        "spec": {"nodeName": node, "containers": [{"image": image}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


def evicted(app: str, node: str) -> dict[str, Any]:
    return {**pod(app, node), "status": {"phase": "Failed", "reason": "Evicted"}}


def pending(app: str) -> dict[str, Any]:
    return {**pod(app, "none"), "spec": {"containers": [{"image": "kgents"}]}, "status": {"phase": "Pending"}}


def unready(app: str, node: str) -> dict[str, Any]:
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}
    return {**pod(app, node), "status": status}


def budget(name: str, allowed: int) -> dict[str, Any]:
    selector = {"matchLabels": {"app.kubernetes.io/name": name}}
    metadata = {"name": name, "labels": {}}
    return {"metadata": metadata, "spec": {"selector": selector}, "status": {"disruptionsAllowed": allowed}}


BUDGETS = [budget(name, 1) for name in ("kgents-api", "kgents-worker", "kgents-nats")]


def policy(name: str, **spec: Any) -> dict[str, Any]:
    selector = {"matchLabels": {"app.kubernetes.io/name": name}}
    return {"metadata": {"name": name, "labels": {}}, "spec": {"podSelector": selector, **spec}}


PUBLIC = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}
POLICIES = [
    policy("kgents-default-deny", podSelector={}, policyTypes=["Ingress", "Egress"]),
    policy("kgents-api", ingress=[{"from": [{"podSelector": {}}]}], egress=[{"to": [PUBLIC]}]),
    policy("kgents-worker"),
    policy("kgents-nats"),
]


def installation(**changed: Any) -> Objects:
    objects: Objects = {
        "deployment": [workload("Deployment", "kgents-api"), workload("Deployment", "kgents-worker")],
        "statefulset": [workload("StatefulSet", "kgents-nats", 3, 3)],
        "pods": [
            *(pod("kgents-api", node) for node in ("one", "two")),
            *(pod("kgents-nats", node) for node in ("one", "two", "three")),
            *(pod("kgents-log-collector", node) for node in ("one", "two", "three")),
        ],
        "daemonset": [
            {
                "kind": "DaemonSet",
                "metadata": {
                    "name": "kgents-log-collector",
                    "namespace": "kgents-logs",
                    "labels": {"app.kubernetes.io/name": "kgents-log-collector"},
                },
                "status": {"desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberReady": 3},
            }
        ],
        "cronjob": [copied(CLOCK.now() - 600 * SECOND)],
        "poddisruptionbudget": BUDGETS,
        "networkpolicy": POLICIES,
    }
    return {**objects, **changed}


def copied(last: int | None, *, suspended: bool = False) -> dict[str, Any]:
    status: Mapping[str, Any] = {} if last is None else {"lastSuccessfulTime": to_rfc3339(last)}
    spec = {"schedule": "17 * * * *", "suspend": suspended}
    return {"metadata": {"name": "kgents-nats-backup", "labels": {}}, "spec": spec, "status": status}


CHECKS: list[Callable[[Target], Found]] = [
    cluster.workloads,
    cluster.spread,
    cluster.images,
    cluster.log_collector,
    cluster.backups,
    cluster.disruption_budgets,
    cluster.network_policies,
]


@pytest.mark.parametrize("check", CHECKS)
def test_an_installation_as_it_should_be_is_a_pass(check: Callable[[Target], Found]) -> None:
    assert check(target(installation())).detail


PODS = installation()["pods"]


@pytest.mark.parametrize(
    ("check", "changed"),
    [
        (cluster.workloads, {"deployment": [workload("Deployment", "kgents-api")]}),
        (
            cluster.workloads,
            {"deployment": [workload("Deployment", "kgents-api", 1), workload("Deployment", "kgents-worker")]},
        ),
        (
            cluster.workloads,
            {"deployment": [workload("Deployment", "kgents-api"), workload("Deployment", "kgents-worker", 0, 0)]},
        ),
        (cluster.spread, {"pods": [*[pod("kgents-api", "one")] * 2, *PODS[2:]]}),
        (
            cluster.spread,
            {"pods": [pod("kgents-api", "one"), pod("kgents-api", "two", deletionTimestamp="now"), *PODS[2:]]},
        ),
        (cluster.spread, {"pods": [*PODS[:2], *[pod("kgents-nats", "one")] * 3]}),
        (cluster.spread, {"pods": [pod("kgents-api", "one"), evicted("kgents-api", "two"), *PODS[2:]]}),
        (cluster.spread, {"pods": [pod("kgents-api", "one"), pending("kgents-api"), *PODS[2:]]}),
        (cluster.spread, {"pods": [pod("kgents-api", "one"), unready("kgents-api", "two"), *PODS[2:]]}),
        (cluster.images, {"pods": [pod("kgents-api", "one", "kgents:latest")]}),
        (cluster.images, {"pods": []}),
        (cluster.log_collector, {"daemonset": []}),
        (cluster.log_collector, {"pods": PODS[:-1]}),
        (cluster.log_collector, {"pods": [*PODS[:-1], evicted("kgents-log-collector", "three")]}),
        (cluster.backups, {"cronjob": []}),
        (cluster.backups, {"cronjob": [copied(CLOCK.now() - 3 * 3600 * SECOND)]}),
        (cluster.backups, {"cronjob": [copied(CLOCK.now(), suspended=True)]}),
        (cluster.disruption_budgets, {"poddisruptionbudget": BUDGETS[:2]}),
        (cluster.disruption_budgets, {"poddisruptionbudget": [*BUDGETS[:2], budget("kgents-nats", 0)]}),
        (cluster.disruption_budgets, {"poddisruptionbudget": [*BUDGETS[:2], budget("kgents-nats", 3)]}),
        (cluster.disruption_budgets, {"poddisruptionbudget": [*BUDGETS[:2], budget("kgents-nats", 2)]}),
        (cluster.disruption_budgets, {"poddisruptionbudget": [budget("kgents-api", 2), *BUDGETS[1:]]}),
        (cluster.network_policies, {"networkpolicy": POLICIES[1:]}),
        (cluster.network_policies, {"networkpolicy": POLICIES[:-1]}),
        (cluster.network_policies, {"networkpolicy": [*POLICIES, policy("all", ingress=[{}])]}),
        (cluster.network_policies, {"networkpolicy": [*POLICIES, policy("all", podSelector={}, egress=[{}])]}),
        (cluster.network_policies, {"networkpolicy": [*POLICIES, policy("all", ingress=[{"ports": [{"port": 1}]}])]}),
        (cluster.network_policies, {"networkpolicy": [*POLICIES, policy("all", egress=[{"to": []}])]}),
        (
            cluster.network_policies,
            {"networkpolicy": [*POLICIES, policy("all", ingress=[{"from": [{"namespaceSelector": {}}]}])]},
        ),
        (
            cluster.network_policies,
            {"networkpolicy": [*POLICIES, policy("all", egress=[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}])]},
        ),
        (disruptive.killed_pod, {"pods": PODS[:1]}),
        (disruptive.killed_pod, {"pods": [evicted("kgents-api", "one"), pod("kgents-api", "two")]}),
    ],
)
def test_what_is_not_is_a_fail(
    check: Callable[[Target], Found], changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disruptive, "_under_load", lambda _target, do, _what: do())
    with pytest.raises(Broken):
        check(target(installation(**changed)))


def test_the_pod_that_is_killed_is_one_that_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disruptive, "_under_load", lambda _target, do, _what: do())
    installed = target(
        installation(pods=[evicted("kgents-api", "one"), pod("kgents-api", "two"), pod("kgents-api", "three")])
    )
    disruptive.killed_pod(installed)
    assert installed.kubectl.deleted == ["kgents-api-two"]  # type: ignore[attr-defined]


def test_a_load_that_broke_off_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disruptive, "BEFORE", 0.0)
    monkeypatch.setattr(disruptive, "AFTER", 0.0)
    monkeypatch.setattr(disruptive, "_recovered", lambda _target: None)
    installed = target(installation())
    installed.url = "http://fd00::1:80"  # no URL: the address needs brackets
    monkeypatch.setattr(installed, "tenant", lambda: Tenant("ten_1", "key"))
    with pytest.raises(NotShown, match=r"The load broke off: InvalidURL.*while a pod of the API was deleted"):
        disruptive.killed_pod(installed)


@pytest.mark.parametrize(
    ("check", "what"), [(disruptive.killed_pod, "was deleted"), (disruptive.rolling_restart, "were replaced")]
)
def test_a_request_that_failed_meanwhile_is_a_fail(
    check: Callable[[Target], Found], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        sent, failed, lacking = 200, ["request 7: 502 Bad Gateway"], ""

        def __init__(self, *_: Any, **_options: Any) -> None: ...
        def __enter__(self) -> Failing:
            return self

        def __exit__(self, *_: Any) -> None: ...

    monkeypatch.setattr(disruptive, "Steady", Failing)
    monkeypatch.setattr(disruptive, "BEFORE", 0.0)
    monkeypatch.setattr(disruptive, "AFTER", 0.0)
    installed = target(installation())
    installed.url = "http://here"
    monkeypatch.setattr(installed, "tenant", lambda: Tenant("ten_1", "key"))
    with pytest.raises(Broken, match=f"1 of 200 requests failed while .*{what}: request 7: 502") as raised:
        check(installed)
    assert raised.value.seen["images"] == ["kgents@sha256:0"]


def test_a_gateways_ipv6_address_is_in_brackets() -> None:
    assert str(WayIn("gateway/kgents", "fd00::1", 80, False, "")) == "http://[fd00::1]:80"


def test_a_copy_that_was_never_made_shows_nothing() -> None:
    with pytest.raises(NotShown):
        cluster.backups(target(installation(cronjob=[copied(None)])))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "RECONCILE_PAUSE", 0.0)


WAY, LOST = {"meter": "runs", "in_flight": 3}, {"meter": "runs", "in_flight": 0}


def test_what_is_on_its_way_is_waited_for() -> None:
    assert cluster.reconciled(target({}, [[WAY], [WAY], []]))


@pytest.mark.parametrize("answers", [[[LOST]], [[WAY], [LOST]], [[WAY]] * 9])
def test_a_difference_that_stays_is_a_fail(answers: list[Any]) -> None:
    with pytest.raises(Broken, match="1 windows differ"):
        cluster.reconciled(target({}, answers))


@pytest.mark.parametrize("answers", [[], [{"summary": "?"}]])
def test_a_comparison_that_was_not_made_shows_nothing(answers: list[Any]) -> None:
    with pytest.raises(NotShown):
        cluster.reconciled(target({}, answers))


def invoices(compared: int = 0, *, differences: int = 0, missing: int = 0) -> dict[str, Any]:
    return {"compared": compared, "differences": [{"what": "runs"}] * differences, "missing": ["sub_1"] * missing}


def test_invoices_that_are_what_the_ledger_says_are_a_pass() -> None:
    assert "in 5 invoices" in cluster.invoiced(target({}, [invoices(2), invoices(3)])).detail


@pytest.mark.parametrize("wrong", [invoices(2, differences=1), invoices(2, missing=1)])
def test_an_invoice_that_differs_is_a_fail(wrong: dict[str, Any]) -> None:
    with pytest.raises(Broken, match="1 "):
        cluster.invoiced(target({}, [invoices(3), wrong]))


@pytest.mark.parametrize("answers", [[], [{"summary": "?"}], [[]], [{**invoices(1), "differences": None}]])
def test_invoices_that_were_not_compared_show_nothing(answers: list[Any]) -> None:
    with pytest.raises(NotShown, match="reconcile"):
        cluster.invoiced(target({}, answers))


def test_without_invoices_one_is_made_for_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = target({}, [invoices(), invoices()])
    subscribed: list[Tenant] = []
    monkeypatch.setattr(made, "tenant", lambda _name: Tenant("ten_1", "key"))
    monkeypatch.setattr(cluster, "_subscribe", lambda _target, tenant: subscribed.append(tenant))
    with pytest.raises(NotShown, match="an hour later"):
        cluster.invoiced(made)
    assert [each.id for each in subscribed] == ["ten_1"]
