"""Bringing an overlay into a cluster: checked first, in an order in which each step stands on the last, and taken back
where it fails.
"""

from __future__ import annotations

import base64
import gzip
import json
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kgents.deploy import findings
from kgents.deploy.findings import Finding, name_of
from kgents.deploy.kubectl import MANAGER, Kubectl, Refused
from kgents.deploy.plan import Objects, Plan, space_of
from kgents.errors import Unprocessable

Say = Callable[[str], None]

RELEASE = "kgents-release"
"""The Secret that holds what was deployed last, to go back to: an overlay may have secrets, and so has it."""
CERTAIN = 15.0  # seconds for which something that waiting does not end has to last
TRIES = 45.0  # such seconds of what is tried again: kubelet pulls an image anew after about 10 s, 20 s, 40 s
LOOK = 1.0  # seconds between two looks
AWAY = 60.0  # seconds for which the cluster may not answer while it is looked at
_HOLDING = ("Job", "PersistentVolumeClaim", "Secret")
_AWAITED = ("StatefulSet", "Job", "Deployment", "DaemonSet")
_REVISION, _HASH = "deployment.kubernetes.io/revision", "pod-template-hash"
_SCALED = ("StatefulSet", "Deployment")
_SCALER = "HorizontalPodAutoscaler"
COUNTER = "kgents-autoscaling"
"""The field manager that holds a number of replicas until the autoscaler sets it."""


class Failed(Unprocessable):
    """A deployment that did not come to its end; the detail says why, and what was done about it."""


class Rollout:
    """One deployment."""

    def __init__(self, kubectl: Kubectl, plan: Plan, *, seconds: float, say: Say) -> None:
        self._kubectl = kubectl
        self._plan = plan
        self._seconds = seconds
        self._say = say
        self._told: dict[str, str] = {}

    def check(self) -> str:
        """Have the cluster check all objects, and answer the difference that they would make. Raises Refused."""
        objects = [_renamed(each) if each["kind"] == "Job" else each for each in self._plan.everything]
        self._kubectl.apply(objects, dry_run=True)
        return self._kubectl.diff([self._counted(each) for each in self._plan.everything if each["kind"] != "Job"])

    def run(self, *, wait: bool) -> None:
        """Deploy. Raises Failed, when what was there before is there again, as far as there was something.

        What is to be gone back to is what was waited for last: without `wait`, that stays what it was.
        """
        made = self.make_namespaces()
        try:
            self.check()
        except Refused as error:
            but = f" but for {', '.join(made)}, which is there now" if made else ""
            raise Failed(
                f"Nothing was changed{but}, since the cluster refuses it: {error.detail}", code="refused"
            ) from None
        earlier = self._earlier()
        try:
            self._go(earlier or [], wait=wait)
        except (Refused, Failed) as error:
            raise self._back(earlier, error.detail) from None
        if not wait:
            return  # what is there may still be as it was before, and need what was deployed with it
        try:
            self._remove(earlier or [], self._plan.everything)
            self._keep()
        except Refused as error:
            raise Failed(
                "It is deployed, but what is no longer in it could not be removed, or what to go back to not be kept: "
                f"{error.detail}. Deploy it again.",
                code="record",
            ) from None

    def make_namespaces(self) -> list[str]:
        """Make the namespaces that are not there: nothing can be checked in one that is not. Answers which."""
        made = []
        for each in missing_namespaces(self._kubectl, self._plan):
            self._kubectl.apply([each])
            self._say(f"{name_of(each)}: made")
            made.append(name_of(each))
        return made

    def _go(self, earlier: Objects, *, wait: bool) -> None:
        plan = self._plan
        self._apply(plan.settings)
        self._apply(plan.stores)
        self._await(plan.stores, plan.least)
        for job in plan.jobs:
            # A job's pods can't be changed; it may be run as often as one likes.
            self._kubectl.delete("job", space_of(job), job["metadata"]["name"])
            self._apply([job])
            self._await([job], plan.least)
        self._remove_autoscalers(earlier, plan.everything)
        self._apply(plan.services)
        if wait:
            self._await(plan.services, plan.least)

    def _apply(self, objects: Objects) -> None:
        if objects:
            for each in objects:
                self._hand_over(each)
            self._kubectl.apply(objects)
            for each in objects:
                if each["kind"] not in _AWAITED:
                    self._say(f"{name_of(each)}: applied")

    def _hand_over(self, each: dict[str, Any]) -> None:
        """Have another manager hold the number of replicas that is left to an autoscaler from now on. A field that
        nobody holds goes back to its default, so that one pod would stay until the autoscaler looks
        (https://kubernetes.io/docs/reference/using-api/server-side-apply/#transferring-ownership).
        """
        if (count := self._left(each)) is not None:
            meta = {key: each["metadata"][key] for key in ("name", "namespace")}
            held = {"apiVersion": each["apiVersion"], "kind": each["kind"], "metadata": meta}
            self._kubectl.hold({**held, "spec": {"replicas": count}}, COUNTER)

    def _counted(self, each: dict[str, Any]) -> dict[str, Any]:
        """An object as it will be once its replicas are handed over."""
        count = self._left(each)
        return each if count is None else {**each, "spec": {**each["spec"], "replicas": count}}

    def _left(self, each: dict[str, Any]) -> int | None:
        """The replicas of a workload that was deployed with a number of them, and no longer says one."""
        if each["kind"] not in _SCALED or "replicas" in each["spec"]:
            return None
        live = self._kubectl.get(each["kind"].lower(), space_of(each), each["metadata"]["name"])
        return live["spec"]["replicas"] if live and _holds_replicas(live) else None

    def _await(self, objects: Iterable[dict[str, Any]], least: Mapping[str, int]) -> None:
        waiting = [each for each in objects if each["kind"] in _AWAITED]
        deadline = time.monotonic() + self._seconds
        answered = time.monotonic()
        since: dict[tuple[str, str], float] = {}
        while waiting:
            try:
                found = look(self._kubectl, waiting, least)
            except Refused:
                # An API server that is away for a moment says nothing of what is deployed.
                if time.monotonic() > min(deadline, answered + AWAY):
                    raise
                time.sleep(LOOK)
                continue
            now = answered = time.monotonic()
            for each in found:
                self._tell(each.name, "ready" if each.ready else each.progress)
            waiting = [each.object for each in found if not each.ready]
            if not waiting:
                return
            for space, pod in ((each.namespace, pod) for each in found for pod in each.stuck):
                self._say(f"pod/{pod}: it can't start as it was before, and is replaced")
                self._kubectl.delete("pod", space, pod)
            everything = [(each.namespace, finding) for each in found for finding in each.findings]
            fatal = [(space, finding) for space, finding in everything if finding.fatal]
            # By the object: a pod whose image can't be pulled says so in turn with why, and with when it tries again.
            since = {one: since.get(one, now) for one in ((space, finding.object) for space, finding in fatal)}
            lasting = [
                (space, finding)
                for space, finding in fatal
                if now - since[space, finding.object] >= (TRIES if finding.retried else CERTAIN)
            ]
            if lasting or now > deadline:
                why = lasting or everything
                raise Failed(self._why(why, [each.name for each in found if not each.ready]), code="rollout")
            time.sleep(LOOK)

    def _why(self, why: Sequence[tuple[str, Finding]], names: Sequence[str]) -> str:
        if not why:
            return f"{', '.join(names)}: not ready after {self._seconds:.0f} s"
        return "; ".join(self._with_last_words(space, finding) for space, finding in why[:5])

    def _with_last_words(self, space: str, finding: Finding) -> str:
        kind, _, name = finding.object.partition("/")
        if kind == "job":
            pods = self._kubectl.list("pods", space, f"batch.kubernetes.io/job-name={name}")
            names = [pod["metadata"]["name"] for pod in pods]
        else:
            names = [name] if (kind == "pod" and "ended" in finding.what) or "ends" in finding.what else []
        for pod in names:
            found = self._kubectl.get("pod", space, pod)
            for container in (found or {}).get("spec", {}).get("containers", ()):
                if said := self._kubectl.last_words(space, pod, container["name"]):
                    return f"{finding}. It said: {said}"
        return str(finding)

    def _tell(self, name: str, text: str) -> None:
        if self._told.get(name) != text:
            self._told[name] = text
            self._say(f"{name}: {text}")

    def _earlier(self) -> Objects | None:
        kept = self._kubectl.get("secret", self._plan.namespace, RELEASE)
        if kept is None:
            return None
        try:
            packed = base64.b64decode(kept["data"]["objects"])
            objects: Objects = json.loads(gzip.decompress(packed))
        except (KeyError, TypeError, ValueError, OSError, EOFError, zlib.error):
            raise Failed(
                f"Nothing was changed: the Secret {RELEASE}, which holds what was deployed last, can't be read. "
                f"To deploy without a way back: kubectl delete secret {RELEASE} --namespace={self._plan.namespace}",
                code="record",
            ) from None
        return objects

    def _back(self, earlier: Objects | None, why: str) -> Failed:
        """Bring back what was deployed before; answers what to say."""
        if earlier is None:
            return Failed(
                f"{why}. It is the first deployment here, so there is nothing to go back to: what was applied is left "
                "as it is. See `kgents deploy status`.",
                code="rollout",
            )
        self._say("going back to what was deployed before")
        plan = Plan.of(earlier)
        try:
            self._remove_autoscalers(self._plan.everything, earlier)
            self._apply([*plan.settings, *plan.stores, *plan.services])
            self._remove(self._plan.everything, earlier)
            self._await([*plan.stores, *plan.services], plan.least)
        except (Refused, Failed) as error:
            return Failed(f"{why}. Going back failed, too: {error.detail}", code="rollback")
        return Failed(f"{why}. What was deployed before is back.", code="rollout")

    def _remove(self, before: Objects, now: Objects) -> None:
        """Delete what was deployed and no longer is; what holds data stays, and autoscalers are gone already."""
        self._delete([each for each in before if each["kind"] not in (*_HOLDING, _SCALER)], now)

    def _remove_autoscalers(self, before: Objects, now: Objects) -> None:
        """Delete the autoscalers that are no longer deployed: before their workloads get a number of replicas that they
        would change.
        """
        self._delete([each for each in before if each["kind"] == _SCALER], now)

    def _delete(self, objects: Objects, but: Objects) -> None:
        kept = {(each["kind"], space_of(each), each["metadata"]["name"]) for each in but}
        for each in objects:
            kind, space, name = each["kind"], space_of(each), each["metadata"]["name"]
            if (kind, space, name) not in kept and space:
                self._kubectl.delete(kind, space, name)
                self._say(f"{name_of(each)}: removed")

    def _keep(self) -> None:
        objects = [each for each in self._plan.everything if each["kind"] != "Job"]
        packed = base64.b64encode(gzip.compress(json.dumps(objects).encode(), mtime=0)).decode()
        self._kubectl.apply(
            [
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": RELEASE, "namespace": self._plan.namespace},
                    "data": {"objects": packed},
                }
            ]
        )


@dataclass(frozen=True, slots=True)
class Look:
    """One workload as it is now."""

    object: dict[str, Any]
    ready: bool
    progress: str
    findings: list[Finding]
    stuck: list[str]
    """Pods of a StatefulSet that can't start as an earlier revision has them. It waits for them for ever, and replaces
    none (https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback).
    """

    @property
    def name(self) -> str:
        """As `deployment/kgents-api`."""
        return name_of(self.object)

    @property
    def namespace(self) -> str:
        """Where it is."""
        return space_of(self.object)


def missing_namespaces(kubectl: Kubectl, plan: Plan) -> Objects:
    """The namespaces of a plan that are not there. Raises Refused."""
    mine = [each for each in plan.settings if each["kind"] == "Namespace"]
    return [each for each in mine if kubectl.get("namespace", "default", each["metadata"]["name"]) is None]


def look(kubectl: Kubectl, objects: Sequence[dict[str, Any]], least: Mapping[str, int]) -> list[Look]:
    """How these workloads are, and what keeps those that are not ready from being so; `least` is as in Plan. Raises
    Refused.
    """
    found = []
    live = {
        (space, name_of(each)): each
        for space, kind in dict.fromkeys((space_of(each), each["kind"]) for each in objects)
        for each in _kinds(kubectl.list(kind.lower(), space), kind)
    }
    pods = {space: _kinds(kubectl.list("pods", space), "Pod") for space in {space_of(each) for each in objects}}
    events: dict[str, Objects] = {}
    for each in objects:
        space = space_of(each)
        now = live.get((space, name_of(each)))
        if now is None:
            missing = Finding(name_of(each), "it is not there", fatal=True)
            found.append(Look(each, ready=False, progress="not there", findings=[missing], stuck=[]))
            continue
        ready = findings.is_ready(now, least.get(name_of(each), 0))
        why: list[Finding] = []
        stuck: list[str] = []
        if not ready:
            if space not in events:
                events[space] = kubectl.list("events", space)
            mine = _newest(now, _pods_of(now, pods[space]), kubectl)
            why = findings.of_workload(now, mine, events[space])
            stuck = findings.stuck(now, mine)
        found.append(Look(now, ready, findings.progress(now), why, stuck))
    return found


def _renamed(job: dict[str, Any]) -> dict[str, Any]:
    """A job under another name, to be checked beside one that is there already and can't be changed."""
    return {**job, "metadata": {**job["metadata"], "name": f"{job['metadata']['name']}-check"}}


def _holds_replicas(live: dict[str, Any]) -> bool:
    """Whether the number of replicas is there because a deployment of ours said it."""
    return any(
        each.get("manager") == MANAGER and "f:replicas" in (each.get("fieldsV1") or {}).get("f:spec", ())
        for each in live["metadata"].get("managedFields", ())
    )


def _kinds(items: Objects, kind: str) -> Objects:
    return [{"kind": kind, **each} for each in items]


def _newest(workload: dict[str, Any], pods: Objects, kubectl: Kubectl) -> Objects:
    """A Deployment's pods of its newest revision: earlier ones, which may never have started, stay until those are
    ready. Of another workload, and where no revision is known, all.
    """
    if workload["kind"] != "Deployment":
        return pods
    mine = workload["metadata"].get("uid")
    sets = [
        each
        for each in kubectl.list("replicasets", space_of(workload))
        if any(owner.get("uid") == mine for owner in each["metadata"].get("ownerReferences", ()))
    ]
    if not sets:
        return pods
    newest = max(sets, key=lambda each: int((each["metadata"].get("annotations") or {}).get(_REVISION, 0)))
    hash_ = (newest["metadata"].get("labels") or {}).get(_HASH)
    return [pod for pod in pods if (pod["metadata"].get("labels") or {}).get(_HASH, hash_) == hash_]


def _pods_of(workload: dict[str, Any], pods: Objects) -> Objects:
    wanted = workload["spec"]["selector"]["matchLabels"]
    return [pod for pod in pods if wanted.items() <= (pod["metadata"].get("labels") or {}).items()]
