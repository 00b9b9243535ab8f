"""What other commands of kgents showed and wrote down: each file names its commit and its time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple

from kgents.clock import from_datetime, from_rfc3339
from kgents.load import verdict
from kgents.load.profiles import meets
from kgents.readiness.checks import cluster
from kgents.readiness.model import Broken, Found, NotShown
from kgents.readiness.target import Target

SCANNERS = frozenset(
    ("pip-audit", "osv", "trivy", "trivy-config", "checkov", "hadolint", "secrets", "image-secrets", "licences", "sbom")
)
"""All of `kgents scan`; a test compares."""
RATE, SECONDS, P99_MS = 100, 60, 100.0
"""Of `kgents loadtest --profile baseline` by default; a test compares."""
BESIDE = ("evidence/", "docs/")
"""Where reports go: what a scan says of a commit holds for the one that the report is committed with."""
RUN_IT = ("deployment/kgents-api", "deployment/kgents-worker")


class Recorded(NamedTuple):
    """A file of `evidence/`: its content, time (microseconds) and commit, the files of the checkout that have changed
    since that commit, and its SHA-256.
    """

    document: dict[str, Any]
    time: int
    commit: str
    changed: list[str]
    sha256: str

    def found(self, detail: str, seen: Mapping[str, Any]) -> Found:
        """What it shows."""
        return Found(detail, {**seen, "file_sha256": self.sha256}, self.time, self.commit)

    @property
    def of(self) -> str:
        """The commit and the machine that it is of."""
        machine = self.document.get("machine") or self.document
        return f"Commit {self.commit[:12]}, {machine.get('CPU', 'unknown CPU')}, {machine.get('cores', '?')} cores."


def read(target: Target, name: str, command: str) -> Recorded:
    """A file of `evidence/`. Raises NotShown where `command` has not written it, where it tells no time or no
    commit, and where HEAD does not come from that one.
    """
    path = target.project / "evidence" / name
    try:
        content = path.read_bytes()
        document = json.loads(content)
        commit = document["commit"]
        if not isinstance(commit, str) or not commit:
            raise ValueError("it names no commit")
        time = _time(document)
    except OSError:
        raise NotShown(f"There is no evidence/{name} yet. Write it with: {command}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NotShown(f"evidence/{name} can't be read. Write it anew with: {command}") from None
    changed = target.changed_since(commit)
    if changed is None:
        raise NotShown(f"evidence/{name} is of {commit}, which HEAD does not come from. Commit, then: {command}")
    return Recorded(document, time, commit, changed, sha256(content).hexdigest())


def _time(document: Mapping[str, Any]) -> int:
    text = str(document.get("started") or document["date"])
    if text.endswith(" UTC"):
        return from_datetime(datetime.strptime(text, "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC))
    return from_rfc3339(text)


def scaled(target: Target) -> Found:
    """Real load drove the autoscaler up and back, and failed no request."""
    recorded = read(target, "autoscaling.json", "make autoscaling")
    document = recorded.document
    replicas = [int(each[1]) for each in document["seen"]]
    first, most, last = replicas[0], max(replicas), replicas[-1]
    requests, failed = document.get("requests"), document.get("failed")
    way = f"{first} -> {most} -> {last}"
    seen = {"replicas": way, "requests": requests, "failed": failed}
    if most <= first or last != first:
        raise Broken(f"It went {way}, not up and back.", seen)
    if not requests or failed is None:
        raise NotShown("evidence/autoscaling.json does not tell how many requests there were, or failed.")
    if failed:
        raise Broken(f"{failed} of {requests} requests failed.", seen)
    return recorded.found(f"{way} replicas, 0 of {requests} requests failed. {recorded.of}", seen)


def scanned(target: Target) -> Found:
    """The last scan ran every scanner, over this tree as it was committed and over the image that runs, and found
    nothing HIGH or CRITICAL without an exception that still counts.
    """
    recorded = read(target, "scan.json", "kgents scan --image FILE --report evidence/scan.json")
    document = recorded.document
    verdicts = {each["scanner"]: each["verdict"] for each in document["scanners"]}
    if not verdicts:
        raise NotShown("evidence/scan.json holds no scanner.")
    if failed := [name for name, verdict in verdicts.items() if verdict == "fail"]:
        raise Broken(f"Open findings: {', '.join(failed)}. See: kgents scan", verdicts)
    if expired := [str(each["rule"]) for each in document["expired_exceptions"]]:
        raise Broken(f"Exceptions that have expired: {', '.join(expired)}. See: kgents scan", verdicts)
    if unknown := [name for name, verdict in verdicts.items() if verdict != "pass"]:
        raise NotShown(f"Could not run: {', '.join(unknown)}. See: kgents scan")
    if left_out := sorted(SCANNERS.difference(verdicts).union(document["left_out"])):
        raise NotShown(f"Left out: {', '.join(left_out)}. Scan without --only, and with --image.")
    if document.get("tree") not in (None, str(target.project.resolve())):
        raise NotShown(f"What was scanned is another tree, {document['tree']}. Scan this one.")
    if environment := document.get("environment"):
        raise NotShown(f"What was scanned is {environment}, not what uv.lock gives. Scan without --environment.")
    if source := document.get("osv_db"):
        raise NotShown(f"OSV's advisories were those of {source}. Scan without --osv-db.")
    if document.get("changed") is not False:
        raise NotShown(f"What was scanned is not commit {recorded.commit[:12]} as it is. Commit, and scan again.")
    if changed := [name for name in recorded.changed if not name.startswith(BESIDE)]:
        raise NotShown(f"{len(changed)} files have changed since the scan, such as {changed[0]}. Scan again.")
    digests = set(map(str, document.get("image_digests") or ()))
    if others := [name for name in RUN_IT if not _all_run(digests, cluster.pods_of(target, name))]:
        raise NotShown(f"{', '.join(others)} runs another image than was scanned. Scan that one: --image.")
    seen = {**verdicts, "image_digests": sorted(digests)}
    return recorded.found(f"{len(verdicts)} scanners, nothing open, and what was scanned is what runs.", seen)


def _all_run(digests: Iterable[str], pods: Iterable[Mapping[str, Any]]) -> bool:
    """Whether there are pods, and each runs an image that has one of the digests."""
    images = [[container["image"] for container in pod["spec"]["containers"]] for pod in pods]
    return bool(images) and all(
        any(image.endswith(f"@{digest}") for image in each for digest in digests) for each in images
    )


def loaded(target: Target) -> Found:
    """The load test's baseline may be believed, is as long and fast as the profile, met the profile's target and failed
    no request. What the file says of that itself is worked out again.
    """
    recorded = read(target, "load-baseline.json", "make loadtest")
    document = recorded.document
    if document["valid"] is not True:
        raise NotShown(f"The run was not valid: {document.get('why') or 'it does not say why'}.")
    if reasons := verdict.reasons(document, {}):
        raise NotShown(f"The run was not valid: {'; '.join(reason.text for reason in reasons)}.")
    profile, steps = str(document["profile"]["name"]), document["steps"]
    if profile != "baseline":
        raise NotShown(f"It is of the profile {profile}. Write it anew with: make loadtest")
    if not steps or any(step["offered"] < RATE or step["seconds"] < SECONDS for step in steps):
        raise NotShown(f"It is not of {RATE} requests a second for {SECONDS} s. Write it anew with: make loadtest")
    if any(type(step["errors"]) is not int for step in steps):
        raise NotShown("It does not tell how many requests failed. Write it anew with: make loadtest")
    errors = sum(step["errors"] for step in steps)
    seen = {"profile": profile, "p99_ms_wanted": P99_MS, "valid": True, "errors": errors}
    seen |= {name: document[name] for name in ("offered", "achieved", "p95_ms")}
    if errors:
        raise Broken(f"{errors} requests failed.", seen)
    if not all(meets(step, P99_MS) for step in steps):
        raise Broken(f"It missed its target: 99 of 100 answers within {P99_MS:g} ms.", seen)
    told = f"{seen['achieved']} requests/s, p95 {seen['p95_ms']} ms, 99 of 100 within {P99_MS:g} ms, no errors."
    return recorded.found(f"{told} {recorded.of}", seen)


def restored(target: Target) -> Found:
    """A drill deleted a stream's messages and the database, restored both, and every message was there."""
    recorded = read(target, "restore.json", "make restore-drill")
    seen = {name: recorded.document[name] for name in ("messages_before", "messages_after", "differences")}
    if seen["messages_before"] <= 0:
        raise NotShown("The drill had no messages to lose.")
    if seen["messages_after"] != seen["messages_before"]:
        raise Broken(f"{seen['messages_after']} of {seen['messages_before']} messages came back.", seen)
    if seen["differences"]:
        raise Broken(f"Ledger and meter differed in {seen['differences']} windows afterwards.", seen)
    return recorded.found(f"All {seen['messages_before']} messages came back, reconcile found 0. {recorded.of}", seen)
