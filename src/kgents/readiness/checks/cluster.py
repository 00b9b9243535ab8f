"""What the cluster says of the installation's objects."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from kgents.clock import SECOND, from_rfc3339, month_bounds, month_of, to_rfc3339
from kgents.deploy import secrets
from kgents.deploy.findings import condition, is_ready, name_of, progress
from kgents.deploy.kubectl import Refused
from kgents.deploy.plan import least_of
from kgents.readiness.model import DAY, Broken, Found, NotShown
from kgents.readiness.target import Target, Tenant, answer

NAME = "app.kubernetes.io/name"
WORKLOADS = ("deployment", "statefulset")
WANTED = ("deployment/kgents-api", "deployment/kgents-worker", "statefulset/kgents-nats")
APART = {"deployment/kgents-api": 2, "statefulset/kgents-nats": 3}
"""On how many nodes the pods of a workload must be at least, so that no node takes all of it away."""
MAY_GO = {"statefulset/kgents-nats": 1}
"""How many pods of a workload may go at once, where that is not all but one: of three NATS servers two are a quorum."""
MONTH = 31 * DAY
RECONCILE_TRIES, RECONCILE_PAUSE = 5, 3.0
BACKUP_AGE = 2 * 3600 * SECOND


def workloads(target: Target) -> Found:
    """Each workload runs what its newest generation says, with every replica."""
    found = {name_of(each): each for kind in WORKLOADS for each in target.kubectl.list(kind, target.namespace)}
    if missing := [name for name in WANTED if name not in found]:
        raise Broken(f"There is no {', no '.join(missing)} in {target.namespace}.", {"there": sorted(found)})
    seen = {name: progress(each) for name, each in found.items()}
    least = least_of(target.kubectl.list("horizontalpodautoscaler", target.namespace))
    if wrong := [name for name, each in found.items() if not is_ready(each, least.get(name, 1))]:
        raise Broken(f"Not ready: {', '.join(f'{name} ({seen[name]})' for name in wrong)}.", seen)
    return Found(f"{len(found)} workloads are ready.", seen)


def spread(target: Target) -> Found:
    """No node holds so much of a workload that its loss is an outage."""
    seen: dict[str, Any] = {}
    for name, least in APART.items():
        nodes = {each["spec"]["nodeName"] for each in pods_of(target, name)}
        seen[name] = sorted(nodes)
        if len(nodes) < least:
            raise Broken(f"The pods of {name} are on {len(nodes)} nodes, {least} are needed.", seen)
    return Found("; ".join(f"{name} on {len(nodes)} nodes" for name, nodes in seen.items()), seen)


def pods_of(target: Target, workload: str) -> list[dict[str, Any]]:
    """The pods of a workload, such as `deployment/kgents-api`, that serve."""
    labels = target.object(*workload.split("/"))["spec"]["selector"]["matchLabels"]
    selector = ",".join(f"{name}={value}" for name, value in labels.items())
    return [each for each in target.kubectl.list("pods", target.namespace, selector) if _serves(each)]


def _serves(pod: Mapping[str, Any]) -> bool:
    """Whether a pod runs, is ready and stays. One that was evicted, say, is still listed."""
    running = (pod.get("status") or {}).get("phase") == "Running" and condition(pod, "Ready")
    return bool(running) and not pod["metadata"].get("deletionTimestamp")


def disruption_budgets(target: Target) -> Found:
    """Each workload of several pods has a budget; it allows a pod to go now, and not so many that an outage follows."""
    budgets = target.kubectl.list("poddisruptionbudget", target.namespace)
    seen = {each["metadata"]["name"]: (each.get("status") or {}).get("disruptionsAllowed", 0) for each in budgets}
    for name in WANTED:
        kind, _, workload = name.partition("/")
        spec = target.object(kind, workload)["spec"]
        labels = spec["template"]["metadata"]["labels"]
        mine = [each for each in budgets if _selects(each["spec"].get("selector"), labels)]
        if not mine:
            raise Broken(f"No PodDisruptionBudget selects the pods of {name}.", seen)
        if blocked := [each["metadata"]["name"] for each in mine if not seen[each["metadata"]["name"]]]:
            raise Broken(f"{', '.join(blocked)} allows no disruption now: a node can't be drained.", seen)
        most = MAY_GO.get(name, spec.get("replicas", 1) - 1)
        if loose := [each["metadata"]["name"] for each in mine if seen[each["metadata"]["name"]] > most]:
            raise Broken(f"{', '.join(loose)} lets more than {most} of {name} go at once: that is an outage.", seen)
    return Found(f"{len(seen)} budgets, each with room for a pod to go.", seen)


def _selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a selector names these labels; one that takes every pod names none."""
    wanted = (selector or {}).get("matchLabels") or {}
    return bool(wanted) and all(labels.get(name) == value for name, value in wanted.items())


def pod_security(target: Target) -> Found:
    """The namespace enforces the restricted standard.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    label = "pod-security.kubernetes.io/enforce"
    namespace = target.kubectl.get("namespace", "default", target.namespace)
    if namespace is None:
        raise Broken(f"There is no namespace {target.namespace}.")
    labels = namespace["metadata"].get("labels") or {}
    seen = {name: value for name, value in labels.items() if name.startswith("pod-security")}
    if labels.get(label) != "restricted":
        raise Broken(f"The namespace enforces {labels.get(label, 'nothing')}, not restricted.", seen)
    return Found("The namespace enforces restricted.", seen)


def network_policies(target: Target) -> Found:
    """Everything is denied in both directions but what a policy allows, each workload has policies of its own, and none
    allows everything.
    """
    policies = target.kubectl.list("networkpolicy", target.namespace)
    seen = {each["metadata"]["name"]: each["spec"] for each in policies}
    closed = [
        name
        for name, spec in seen.items()
        if not spec.get("podSelector")
        and set(spec.get("policyTypes", ())) == {"Ingress", "Egress"}
        and not spec.get("ingress")
        and not spec.get("egress")
    ]
    if not closed:
        raise Broken(
            "No policy denies everything that is not allowed, in and out, for every pod.", {"there": sorted(seen)}
        )
    if open_ := [name for name, spec in seen.items() if _allows_anyone(spec)]:
        raise Broken(f"{', '.join(open_)} allows traffic from or to anyone.", {name: seen[name] for name in open_})
    for name in WANTED:
        kind, _, workload = name.partition("/")
        labels = target.object(kind, workload)["spec"]["template"]["metadata"]["labels"]
        if not any(_selects(spec.get("podSelector"), labels) for spec in seen.values()):
            raise Broken(f"No policy says what {name} may reach.", {"there": sorted(seen)})
    return Found(f"{', '.join(closed)} denies all, {len(seen) - len(closed)} policies allow.", {"there": sorted(seen)})


def _allows_anyone(spec: Mapping[str, Any]) -> bool:
    """Whether a rule of a policy has no peers, which means all, or a peer that is every address or every namespace."""
    for direction, name in (("ingress", "from"), ("egress", "to")):
        for rule in spec.get(direction) or ():
            if not rule.get(name) or any(_is_anyone(peer) for peer in rule[name]):
                return True
    return False


def _is_anyone(peer: Mapping[str, Any]) -> bool:
    if "ipBlock" in peer:
        return str(peer["ipBlock"]["cidr"]).endswith("/0") and not peer["ipBlock"].get("except")
    return peer.get("namespaceSelector") == {} and not peer.get("podSelector")


def complete_secrets(target: Target) -> Found:
    """No value is missing or malformed. What is kept as evidence are the verdicts, never a value."""

    wants = secrets.wanted(target.check_pepper)
    values = secrets.read(lambda name: target.kubectl.get("secret", target.namespace, name), wants)
    verdicts = secrets.check(values, wants)
    seen = {f"{each.secret}/{each.key}": each.verdict for each in verdicts}
    if wrong := [f"{name} ({verdict})" for name, verdict in seen.items() if verdict in ("missing", "malformed")]:
        raise Broken(f"Not complete: {', '.join(wrong)}.", seen)
    return Found(f"{sum(verdict == 'ok' for verdict in seen.values())} values are there and well-formed.", seen)


def images(target: Target) -> Found:
    """Each container runs an image that is named by its digest, so that what was scanned is what runs."""
    pods = target.kubectl.list("pods", target.namespace)
    seen = sorted({container["image"] for pod in pods for container in _containers(pod)})
    if not seen:
        raise Broken(f"There are no pods in {target.namespace}.")
    if loose := [image for image in seen if "@sha256:" not in image]:
        raise Broken(f"Not by digest: {', '.join(loose)}.", {"images": seen})
    return Found(f"{len(seen)} images, each by its digest.", {"images": seen})


def _containers(pod: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def autoscaler(target: Target) -> Found:
    """The autoscaler of the API reads its metric and may act on it."""
    found = target.object("horizontalpodautoscaler", "kgents-api")
    status, spec = found.get("status") or {}, found["spec"]
    seen = {
        "min": spec.get("minReplicas"),
        "max": spec["maxReplicas"],
        "replicas": status.get("currentReplicas"),
        "metrics": status.get("currentMetrics"),
        "conditions": {each["type"]: each["status"] for each in status.get("conditions") or ()},
    }
    for name in ("AbleToScale", "ScalingActive"):
        if not condition(found, name):
            why = condition(found, name, "False")
            raise Broken(f"{name} is not true: {(why or {}).get('message', 'not said yet')}", seen)
    if condition(found, "ScalingLimited") and status.get("currentReplicas") == spec["maxReplicas"]:
        raise Broken(f"It is at its maximum of {spec['maxReplicas']} and would go on.", seen)
    return Found(f"It reads its metrics, between {seen['min']} and {seen['max']} replicas.", seen)


def backups(target: Target) -> Found:
    """The event bus was copied within two hours; the CronJob does so each hour."""
    found = target.object("cronjob", "kgents-nats-backup")
    last = (found.get("status") or {}).get("lastSuccessfulTime")
    seen = {"schedule": found["spec"]["schedule"], "last": last, "suspended": bool(found["spec"].get("suspend"))}
    if seen["suspended"]:
        raise Broken("kgents-nats-backup is suspended.", seen)
    if last is None:
        raise NotShown(
            "kgents-nats-backup has not succeeded yet. See: kubectl get jobs --namespace=" + target.namespace
        )
    if target.clock.now() - from_rfc3339(last) > BACKUP_AGE:
        raise Broken(f"The last copy that succeeded is of {last}.", seen)
    return Found(f"The last copy is of {last}.", seen)


def log_collector(target: Target) -> Found:
    """The collector runs on every node on which pods of kgents run."""
    found = [
        each
        for each in target.kubectl.everywhere("daemonset")
        if each["metadata"].get("labels", {}).get(NAME) == "kgents-log-collector"
    ]
    if not found:
        raise Broken("There is no DaemonSet of a log collector (app.kubernetes.io/name=kgents-log-collector).")
    if not is_ready(found[0]):
        raise Broken(f"{name_of(found[0])}: {progress(found[0])}.", found[0].get("status"))
    pods = target.kubectl.list("pods", found[0]["metadata"]["namespace"], f"{NAME}=kgents-log-collector")
    with_collector = {pod["spec"].get("nodeName") for pod in pods if _serves(pod)}
    nodes = {pod["spec"].get("nodeName") for pod in target.kubectl.list("pods", target.namespace)} - {None}
    seen = {"collector": sorted(filter(None, with_collector)), "kgents": sorted(filter(None, nodes))}
    if lacking := nodes - with_collector:
        raise Broken(f"No collector on {', '.join(sorted(filter(None, lacking)))}.", seen)
    return Found(f"It runs on all {len(nodes)} nodes of kgents.", seen)


def invoiced(target: Target) -> Found:
    """Every invoice of this month and the last is what the ledger says, and where Stripe collects, what Stripe has.

    Where there is none yet, a tenant of its own is on a plan of nothing for as long as the other checks take. Its
    invoice is due when KGENTS_INVOICE_DELAY is over, an hour after.
    """
    now = target.clock.now()
    months = [month_of(month_bounds(month_of(now))[0] - 1), month_of(now)]
    seen = {month: _compared(target, month) for month in months}
    wrong = {name: sum(len(each[name]) for each in seen.values()) for name in ("differences", "missing")}
    if wrong["differences"] or wrong["missing"]:
        raise Broken(f"{wrong['differences']} differences, and {wrong['missing']} invoices were not made.", seen)
    if compared := sum(each["compared"] for each in seen.values()):
        return Found(f"No difference in {compared} invoices of {' and '.join(months)}.", seen)
    _subscribe(target, target.tenant("billed"))
    raise NotShown(
        f"There is no invoice of {' or '.join(months)}. A tenant that uses something is subscribed now; run this again "
        "an hour later (KGENTS_INVOICE_DELAY), when its invoice is made."
    )


def _compared(target: Target, month: str) -> dict[str, Any]:
    command = ["/opt/kgents/bin/kgents", "invoice", "reconcile", month, "--output=json"]
    try:
        found = target.kubectl.execute(target.namespace, "deployment/kgents-api", command)
        return {"compared": int(found["compared"]), **{name: list(found[name]) for name in ("differences", "missing")}}
    except Refused as error:
        raise NotShown(f"`kgents invoice reconcile` could not be run in a pod of the API: {error.detail}") from None
    except (KeyError, TypeError, ValueError):
        raise NotShown("`kgents invoice reconcile` did not answer as it does.") from None


def _subscribe(target: Target, tenant: Tenant) -> None:
    with target.http(target.admin_key) as admin, target.http(tenant.key) as http:
        # It costs nothing: an invoice of nothing is sent to nobody.
        plan = answer(admin, "POST", "/v1/plans", {"name": f"ready-{target.run}", "currency": "eur"})["id"]
        answer(admin, "PUT", f"/v1/tenants/{tenant.id}/subscription", {"plan": plan})
        answer(admin, "DELETE", f"/v1/plans/{plan}")
        body = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}
        answer(http, "POST", "/v1/chat/completions", body)


def reconciled(target: Target) -> Found:
    """Ledger and meter agree over the last month: `kgents usage reconcile` finds no difference."""
    now = target.clock.now()
    range_ = [f"--from={to_rfc3339(now - MONTH)[:10]}", f"--to={to_rfc3339(now + DAY)[:10]}"]
    command = ["/opt/kgents/bin/kgents", "usage", "reconcile", *range_, "--output=json"]
    for again in (True,) * RECONCILE_TRIES + (False,):
        try:
            differences = target.kubectl.execute(target.namespace, "deployment/kgents-api", command)
        except Refused as error:
            raise NotShown(f"`kgents usage reconcile` could not be run in a pod of the API: {error.detail}") from None
        if not isinstance(differences, list):
            raise NotShown("`kgents usage reconcile` did not answer as it does.")
        if not differences:
            return Found("No difference in the last 31 days.", {"differences": [], "range": range_})
        if again and any(each.get("in_flight") for each in differences):
            time.sleep(RECONCILE_PAUSE)  # what is on its way is not in the meter yet
        else:
            break
    raise Broken(f"{len(differences)} windows differ.", {"differences": differences[:100], "range": range_})
