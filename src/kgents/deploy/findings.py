"""Why an object is not ready, in words: from its status, its pods' and the cluster's events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Object = Mapping[str, Any]

_WAITING = {
    "ErrImagePull": "its image can't be pulled",
    "ImagePullBackOff": "its image can't be pulled",
    "InvalidImageName": "its image has an invalid name",
    "ErrImageNeverPull": "its image is not on the node, and may not be pulled",
    "CreateContainerConfigError": "its configuration can't be made",
    "CreateContainerError": "its container can't be made",
    "RunContainerError": "its container can't be started",
    "CrashLoopBackOff": "it ends again and again",
}
FATAL = frozenset(_WAITING) - {"CrashLoopBackOff"}
"""Reasons for which there is no use in waiting once they last: nothing but another deployment ends them. The other one
comes also while something else is not there yet.
"""
_RETRIED = frozenset({"ErrImagePull", "ImagePullBackOff"})


class Finding(NamedTuple):
    """Something that is not as it should be. `fatal` says that waiting does not help; `retried`, that it has been tried
    once or twice, and will be a few times more.
    """

    object: str
    what: str
    fatal: bool = False
    retried: bool = False

    def __str__(self) -> str:
        return f"{self.object}: {self.what}"


def name_of(found: Object) -> str:
    """An object as one says it: `deployment/kgents-api`."""
    return f"{found['kind'].lower()}/{found['metadata']['name']}"


def is_ready(found: Object, least: int = 0) -> bool:
    """Whether a workload does what its newest generation says, with every replica; `least` is how many an autoscaler
    sees to.
    """
    status, spec = found.get("status") or {}, found.get("spec") or {}
    kind = found["kind"]
    if kind == "Job":
        return condition(found, "Complete") is not None
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
        return False
    wanted = max(least, spec.get("replicas", 1))
    if kind == "Deployment":
        updated = status.get("updatedReplicas", 0)
        return bool(updated >= wanted == status.get("replicas", 0) == status.get("availableReplicas", 0))
    if kind == "StatefulSet":
        same = status.get("currentRevision") == status.get("updateRevision")
        return bool(same and status.get("readyReplicas", 0) >= wanted)
    if kind == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        return bool(status.get("updatedNumberScheduled", 0) == wanted == status.get("numberReady", 0))
    return True


def progress(found: Object) -> str:
    """How far a workload is."""
    status, spec = found.get("status") or {}, found.get("spec") or {}
    if found["kind"] == "Job":
        tries = status.get("failed", 0)
        return "done" if condition(found, "Complete") else "running" + (f", {tries} failed tries" if tries else "")
    if found["kind"] == "DaemonSet":
        return f"{status.get('numberReady', 0)} of {status.get('desiredNumberScheduled', 0)} ready"
    updated = status.get("updatedReplicas", 0)
    ready = status.get("readyReplicas", 0)
    return f"{updated} of {spec.get('replicas', 1)} updated, {ready} ready"


def lacks_pods(found: Object) -> bool:
    """Whether a workload has fewer pods than it should, ready or not."""
    status, spec = found.get("status") or {}, found.get("spec") or {}
    if found["kind"] == "Job":
        return not any(status.get(each) for each in ("active", "succeeded", "failed"))
    if found["kind"] == "DaemonSet":
        return bool(status.get("currentNumberScheduled", 0) < status.get("desiredNumberScheduled", 1))
    return bool(status.get("replicas", 0) < spec.get("replicas", 1))


def condition(found: Object, name: str, value: str = "True") -> Object | None:
    """The object's condition of this name, if it has this value."""
    for each in (found.get("status") or {}).get("conditions") or ():
        if each["type"] == name and each["status"] == value:
            return each  # type: ignore[no-any-return]
    return None


def of_workload(found: Object, pods: Sequence[Object], events: Sequence[Object]) -> list[Finding]:
    """What keeps a workload that is not ready from being so."""
    findings = list(_of_itself(found, events))
    for pod in pods:
        findings += _of_pod(pod, events)
    return list(dict.fromkeys(findings))


def stuck(found: Object, pods: Sequence[Object]) -> list[str]:
    """The names of a StatefulSet's pods that are of an earlier revision, and can't start."""
    if found["kind"] != "StatefulSet":
        return []
    newest = (found.get("status") or {}).get("updateRevision")
    return [
        pod["metadata"]["name"]
        for pod in pods
        if pod["metadata"]["labels"].get("controller-revision-hash") != newest
        and not pod["metadata"].get("deletionTimestamp")
        and any(_waits_for(each) in _WAITING for each in (pod.get("status") or {}).get("containerStatuses") or ())
    ]


def _of_itself(found: Object, events: Sequence[Object]) -> Iterator[Finding]:
    name = name_of(found)
    if failure := condition(found, "ReplicaFailure"):
        yield Finding(name, f"its pods are refused: {failure['message']}", fatal=True)
    if failure := condition(found, "Failed"):
        yield Finding(name, f"it failed: {failure.get('message', failure.get('reason', ''))}", fatal=True)
    if failure := condition(found, "Progressing", "False"):
        yield Finding(name, str(failure.get("message", "it makes no progress")), fatal=True)
    if lacks_pods(found):  # an event stays for an hour, whatever has become of it
        for event in _about(found, events, "FailedCreate"):
            yield Finding(name, f"its pods are refused: {event['message']}", fatal=True)


def _of_pod(pod: Object, events: Sequence[Object]) -> Iterator[Finding]:
    name = name_of(pod)
    status = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp") or status.get("phase") == "Succeeded":
        return
    if unscheduled := condition(pod, "PodScheduled", "False"):
        yield Finding(name, f"no node takes it: {unscheduled.get('message', '')}")
        return
    told = False
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        for finding in _of_container(name, container):
            told = True
            yield finding
    if told or condition(pod, "Ready"):
        return
    for reason, words in (
        ("FailedMount", "a volume can't be mounted"),
        ("FailedAttachVolume", "a volume can't be attached"),
        ("FailedCreatePodSandBox", "its network can't be made"),
        ("Unhealthy", "a probe fails"),
    ):
        if about := list(_about(pod, events, reason)):
            yield Finding(name, f"{words}: {about[-1]['message']}")


def _waits_for(container: Object) -> str:
    waiting = (container.get("state") or {}).get("waiting") or {}
    return str(waiting.get("reason", ""))


def _of_container(pod: str, status: Object) -> Iterator[Finding]:
    state = status.get("state") or {}
    waiting = state.get("waiting") or {}
    reason = _waits_for(status)
    last = (status.get("lastState") or {}).get("terminated") or state.get("terminated") or {}
    if reason in _WAITING:
        why = f": {waiting['message']}" if waiting.get("message") else ""
        if reason == "CrashLoopBackOff":
            why = f", {_ended(last)}" if last else ""
        what = f"{_WAITING[reason]} (container {status['name']}{why})"
        yield Finding(pod, what, reason in FATAL, reason in _RETRIED)
    elif last and last.get("exitCode"):
        yield Finding(pod, f"container {status['name']} ended {_ended(last)}")


def _ended(terminated: Object) -> str:
    if terminated.get("reason") == "OOMKilled":
        return "because it used more memory than its limit"
    return f"with exit status {terminated.get('exitCode')}"


def _about(found: Object, events: Sequence[Object], reason: str) -> Iterator[Object]:
    for event in events:
        about = event["involvedObject"]
        same = about.get("uid", "") in ("", found["metadata"].get("uid", about.get("uid")))
        if event.get("reason") == reason and about.get("name") == found["metadata"]["name"] and same:
            yield event
