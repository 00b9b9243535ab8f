"""Why something is not ready, in words."""

from __future__ import annotations

from typing import Any

import pytest

from kgents.deploy.findings import Finding, is_ready, of_workload, progress


def deployment(generation: int = 2, **status: Any) -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {"name": "kgents-api", "generation": generation},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": 2, **status},
    }


def stateful(**status: Any) -> dict[str, Any]:
    return {
        "kind": "StatefulSet",
        "metadata": {"name": "kgents-nats", "generation": 1},
        "spec": {"replicas": 3},
        "status": {"observedGeneration": 1, "currentRevision": "b", "updateRevision": "b", **status},
    }


def pod(*containers: dict[str, Any], phase: str = "Pending", conditions: list[dict[str, Any]] | None = None) -> Any:
    return {
        "kind": "Pod",
        "metadata": {"name": "api-1"},
        "status": {"phase": phase, "conditions": conditions or [], "containerStatuses": list(containers)},
    }


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"name": "api", "state": {"waiting": {"reason": reason, "message": message}}, **more}


def event(reason: str, message: str, name: str = "api-1") -> dict[str, Any]:
    return {"reason": reason, "message": message, "involvedObject": {"name": name}}


ALL = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "readyReplicas": 2}


@pytest.mark.parametrize(
    ("found", "ready"),
    [
        (deployment(**ALL), True),
        (deployment(3, **ALL), False),  # the controller has not seen the newest yet
        (deployment(**ALL | {"replicas": 3}), False),  # an old pod is still there
        (deployment(**ALL | {"availableReplicas": 1}), False),
        (deployment(), False),
        (stateful(readyReplicas=3), True),
        (stateful(readyReplicas=2), False),
        (stateful(readyReplicas=3, updateRevision="c"), False),
        (
            {
                "kind": "Job",
                "metadata": {"name": "m"},
                "status": {"conditions": [{"type": "Complete", "status": "True"}]},
            },
            True,
        ),
        ({"kind": "Job", "metadata": {"name": "m"}, "status": {}}, False),
        (
            {
                "kind": "DaemonSet",
                "metadata": {"name": "d", "generation": 1},
                "status": {
                    "observedGeneration": 1,
                    "desiredNumberScheduled": 3,
                    "updatedNumberScheduled": 3,
                    "numberReady": 2,
                },
            },
            False,
        ),
    ],
)
def test_ready_is_every_replica_of_the_newest_generation(found: dict[str, Any], ready: bool) -> None:
    assert is_ready(found) is ready


def test_progress_says_how_far_it_is() -> None:
    assert progress(deployment(updatedReplicas=1, readyReplicas=2)) == "1 of 2 updated, 2 ready"


@pytest.mark.parametrize(
    ("seen", "events", "what", "fatal"),
    [
        (
            pod(waiting("ImagePullBackOff", 'Back-off pulling image "kgents:9"')),
            [],
            'its image can\'t be pulled (container api: Back-off pulling image "kgents:9")',
            True,
        ),
        (
            pod(waiting("CreateContainerConfigError", 'secret "kgents-api-secrets" not found')),
            [],
            'its configuration can\'t be made (container api: secret "kgents-api-secrets" not found)',
            True,
        ),
        (
            pod(waiting("CrashLoopBackOff", lastState={"terminated": {"exitCode": 1, "reason": "Error"}})),
            [],
            "it ends again and again (container api, with exit status 1)",
            False,
        ),
        (
            pod(waiting("CrashLoopBackOff", lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}})),
            [],
            "it ends again and again (container api, because it used more memory than its limit)",
            False,
        ),
        (
            pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient cpu"}]),
            [],
            "no node takes it: 0/3 nodes: Insufficient cpu",
            False,
        ),
        (
            pod(waiting("ContainerCreating")),
            [event("FailedMount", 'secret "kgents-api-secrets" not found')],
            'a volume can\'t be mounted: secret "kgents-api-secrets" not found',
            False,
        ),
        (
            pod({"name": "api", "state": {"running": {}}}, phase="Running"),
            [event("Unhealthy", "Readiness probe failed: 503")],
            "a probe fails: Readiness probe failed: 503",
            False,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_keeps_a_pod_from_being_ready(seen: Any, events: list[Any], what: str, fatal: bool) -> None:
    found = of_workload(deployment(), [seen], events)
    assert [(each.object, each.what, each.fatal) for each in found] == [("pod/api-1", what, fatal)]


def test_a_ready_pod_and_one_that_leaves_are_no_findings() -> None:
    good = pod(phase="Running", conditions=[{"type": "Ready", "status": "True"}])
    leaving = pod(waiting("CrashLoopBackOff"))
    leaving["metadata"]["deletionTimestamp"] = "2026-11-26T12:00:00Z"
    assert of_workload(deployment(), [good, leaving], [event("Unhealthy", "long ago")]) == []


@pytest.mark.parametrize(
    ("condition", "what"),
    [
        (
            {"type": "ReplicaFailure", "status": "True", "message": "violates PodSecurity"},
            "its pods are refused: violates PodSecurity",
        ),
        ({"type": "Progressing", "status": "False", "message": "deadline exceeded"}, "deadline exceeded"),
    ],
)
def test_what_a_deployment_says_of_itself_is_final(condition: dict[str, Any], what: str) -> None:
    assert of_workload(deployment(conditions=[condition]), [], []) == [Finding("deployment/kgents-api", what, True)]


def test_a_job_that_failed_is_final() -> None:
    job = {
        "kind": "Job",
        "metadata": {"name": "kgents-migrate"},
        "status": {"conditions": [{"type": "Failed", "status": "True", "message": "reached the backoff limit"}]},
    }
    assert of_workload(job, [], []) == [Finding("job/kgents-migrate", "it failed: reached the backoff limit", True)]


def test_what_is_found_twice_is_told_once() -> None:
    failed = event("FailedCreate", "exceeded quota", "kgents-api")
    assert len(of_workload(deployment(), [], [failed, failed])) == 1


@pytest.mark.parametrize(
    ("status", "uid", "refused"),
    [({}, "", True), ({}, "mine", True), ({}, "another", False), ({"replicas": 2}, "mine", False)],
    ids=["of its name", "its own", "of one before it", "since it has its pods"],
)
def test_pods_were_refused_where_some_are_missing_and_the_event_is_its_own(
    status: dict[str, Any], uid: str, refused: bool
) -> None:
    found = deployment(**status)
    found["metadata"]["uid"] = "mine"
    failed = event("FailedCreate", "exceeded quota", "kgents-api")
    failed["involvedObject"]["uid"] = uid
    wanted = [Finding("deployment/kgents-api", "its pods are refused: exceeded quota", True)] if refused else []
    assert of_workload(found, [], [failed]) == wanted
