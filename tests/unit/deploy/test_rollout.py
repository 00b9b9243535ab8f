"""A deployment that goes wrong ends as it says, whatever the cluster does meanwhile (in a real one: tests/cluster)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from kgents.deploy import rollout
from kgents.deploy.kubectl import MANAGER, Refused
from kgents.deploy.plan import Plan
from kgents.deploy.rollout import RELEASE, Failed, Rollout

SPACE = "kgents-agents"


def release(image: str, least: int = 2, **spec: Any) -> list[dict[str, Any]]:
    """An API of this image, with an autoscaler that sees to so many replicas, and more of its `spec`."""
    meta = {"name": "kgents-api", "namespace": SPACE}
    labels = {"app": "api"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "api", "image": image}]}}
    target = {"kind": "Deployment", "name": "kgents-api"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {"selector": {"matchLabels": labels}, "template": pod, **spec},
        },
        {"kind": "HorizontalPodAutoscaler", "metadata": meta, "spec": {"scaleTargetRef": target, "minReplicas": least}},
    ]


class Cluster:
    """What kubectl is asked, of a cluster in which pods of the image `bad` never start, and say something else about it
    at each of `looks`; others are ready after `slow` looks. `refusing` is how often it does not answer a question about
    workloads before it does again; `refused_kinds` it takes no object of. `counts` are the numbers of replicas that the
    API had, where nobody but `holders` sets them. `others` is what else there is, by its kind.
    """

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.holders: dict[str, int] = {}
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.looks = self.slow = 0
        self.others: dict[str, list[dict[str, Any]]] = {}
        self.refusing = 0
        self.refused_kinds: tuple[str, ...] = ()

    def apply(self, objects: list[dict[str, Any]], *, dry_run: bool = False) -> None:
        for each in objects:
            if each["kind"] in self.refused_kinds:
                raise Refused("too large", code="cluster")
            if dry_run:
                continue
            if each["kind"] == "Deployment":
                self._count(each, MANAGER)
            self.objects[each["kind"].lower(), each["metadata"]["name"]] = copy.deepcopy(each)

    def hold(self, part: dict[str, Any], manager: str) -> None:
        self._count(part, manager)

    def diff(self, objects: list[dict[str, Any]]) -> str:
        """The number of replicas that there would be, of those who say one."""
        return ", ".join(str(each["spec"]["replicas"]) for each in objects if "replicas" in each.get("spec", ()))

    def get(self, kind: str, _namespace: str, name: str) -> dict[str, Any] | None:
        found = copy.deepcopy(self.objects.get((kind, name)))
        if found and kind == "deployment":
            found["spec"]["replicas"] = self.counts[-1]
            fields = {"f:spec": {"f:replicas": {}}}
            found["metadata"]["managedFields"] = [{"manager": each, "fieldsV1": fields} for each in self.holders]
        return found

    def list(self, kind: str, _namespace: str, _selector: str = "") -> list[dict[str, Any]]:
        if self.refusing:
            self.refusing -= 1
            raise Refused("the connection was refused", code="cluster")
        if kind != "deployment":
            return self.others.get(kind, [])
        return [self._live(each) for (found, _), each in self.objects.items() if found == kind]

    def delete(self, kind: str, _namespace: str, name: str) -> None:
        self.objects.pop((kind.lower(), name), None)

    def _count(self, deployment: dict[str, Any], manager: str) -> None:
        count = deployment["spec"].get("replicas")
        if count is None:
            self.holders.pop(manager, None)
        else:
            self.holders = {each: held for each, held in self.holders.items() if held == count} | {manager: count}
        self.counts.append(next(iter(self.holders.values()), 1))

    @property
    def image(self) -> str:
        """What the API runs."""
        template = self.objects["deployment", "kgents-api"]["spec"]["template"]
        return str(template["spec"]["containers"][0]["image"])

    def _live(self, found: dict[str, Any]) -> dict[str, Any]:
        if found["spec"]["template"]["spec"]["containers"][0]["image"] == "bad":
            self.looks += 1
            message = f"its pods don't start, for the {self.looks}th time"
            conditions = [{"type": "Progressing", "status": "False", "message": message}]
            return {**found, "status": {"replicas": 2, "conditions": conditions}}
        found = {**found, "metadata": {**found["metadata"], "uid": "api"}}
        if self.slow:
            self.slow -= 1
            return {**found, "status": {"replicas": 1}}
        count = max(self.counts[-1], self.objects["horizontalpodautoscaler", "kgents-api"]["spec"]["minReplicas"])
        spec = {**found["spec"], "replicas": count}
        return {
            **found,
            "spec": spec,
            "status": dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), count),
        }


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr(rollout, "CERTAIN", 0.05)
    monkeypatch.setattr(rollout, "LOOK", 0.01)
    return Cluster()


def deploy(cluster: Cluster, objects: list[dict[str, Any]], *, wait: bool = True) -> None:
    Rollout(cluster, Plan.of(objects), seconds=2, say=lambda _: None).run(wait=wait)  # type: ignore[arg-type]


def test_what_was_there_before_is_back_whatever_the_failed_one_wanted_of_its_autoscaler(cluster: Cluster) -> None:
    deploy(cluster, release("good"))
    with pytest.raises(Failed, match="What was deployed before is back"):
        deploy(cluster, release("bad", least=5))
    assert cluster.image == "good"


def test_what_does_not_start_is_given_up_soon_whatever_it_says_meanwhile(cluster: Cluster) -> None:
    with pytest.raises(Failed, match="its pods don't start"):
        deploy(cluster, release("bad"))
    assert cluster.looks < 20  # one in 0.01 s, for 0.05 s; until the 2 s are over there are 200


def of_revision(number: int, **metadata: Any) -> dict[str, Any]:
    labels = {"app": "api", "pod-template-hash": f"hash{number}"}
    return {"metadata": {"name": f"api-{number}", "namespace": SPACE, "labels": labels, **metadata}}


def test_pods_that_never_started_of_an_earlier_release_do_not_fail_the_next(cluster: Cluster) -> None:
    waiting = {"name": "api", "state": {"waiting": {"reason": "InvalidImageName"}}}
    cluster.others["pods"] = [of_revision(1) | {"status": {"containerStatuses": [waiting]}}]
    cluster.others["replicasets"] = [
        of_revision(
            number, ownerReferences=[{"uid": "api"}], annotations={"deployment.kubernetes.io/revision": str(number)}
        )
        for number in (10, 1, 9)
    ]
    cluster.slow = 20
    deploy(cluster, release("good"))
    cluster.others["pods"][0]["metadata"]["labels"]["pod-template-hash"] = "hash10"
    cluster.slow = 20
    with pytest.raises(Failed, match="invalid name"):
        deploy(cluster, release("better"))


def test_what_is_not_waited_for_removes_nothing(cluster: Cluster) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings-1", "namespace": SPACE}}
    deploy(cluster, [*release("good"), settings])
    deploy(cluster, release("bad"), wait=False)
    assert ("configmap", "settings-1") in cluster.objects
    deploy(cluster, release("better"))
    assert ("configmap", "settings-1") not in cluster.objects


def test_a_cluster_that_does_not_answer_for_a_moment_takes_nothing_back(cluster: Cluster) -> None:
    deploy(cluster, release("good"))
    cluster.refusing = 3
    deploy(cluster, release("better"))
    assert cluster.image == "better"


def test_a_cluster_that_no_longer_answers_is_told_of(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "AWAY", 0.05)
    cluster.refusing = 10**6
    with pytest.raises(Failed, match="the connection was refused"):
        deploy(cluster, release("good"))


def test_what_was_not_waited_for_is_nothing_to_go_back_to(cluster: Cluster) -> None:
    deploy(cluster, release("good"))
    deploy(cluster, release("bad"), wait=False)
    with pytest.raises(Failed, match="What was deployed before is back"):
        deploy(cluster, release("bad"))
    assert cluster.image == "good"


def test_a_record_that_can_not_be_kept_is_told_of(cluster: Cluster) -> None:
    cluster.refused_kinds = ("Secret",)
    with pytest.raises(Failed, match="It is deployed, but"):
        deploy(cluster, release("good"))


@pytest.mark.parametrize("kept", [{}, {"data": None}, {"data": {"objects": "eA=="}}])
def test_a_record_that_can_not_be_read_stops_it_before_anything_is_changed(
    cluster: Cluster, kept: dict[str, Any]
) -> None:
    deploy(cluster, release("good"))
    cluster.objects["secret", RELEASE] = kept
    with pytest.raises(Failed, match="Nothing was changed"):
        deploy(cluster, release("better"))
    assert cluster.image == "good"


def test_an_autoscaler_takes_over_as_many_replicas_as_there_are(cluster: Cluster) -> None:
    deploy(cluster, release("good", replicas=3))
    assert Rollout(cluster, Plan.of(release("good")), seconds=2, say=print).check() == "3"  # type: ignore[arg-type]
    deploy(cluster, release("good"))
    deploy(cluster, release("better"))
    assert set(cluster.counts) == {3}


def test_going_back_to_an_autoscaler_keeps_as_many_replicas_as_there_are(cluster: Cluster) -> None:
    deploy(cluster, release("good", replicas=2))
    deploy(cluster, release("good"))
    with pytest.raises(Failed, match="What was deployed before is back"):
        deploy(cluster, release("bad", replicas=4))
    assert cluster.counts[-1] == 4
    assert 1 not in cluster.counts


def test_namespaces_that_were_made_before_the_cluster_refused_are_named(cluster: Cluster) -> None:
    cluster.refused_kinds = ("Deployment",)
    with pytest.raises(Failed, match=f"Nothing was changed but for namespace/{SPACE}"):
        deploy(cluster, release("good"))
