"""What other commands of kgents showed and wrote down: each file names its commit and its time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kgents.clock import from_datetime, from_rfc3339
from kgents.readiness.model import Broken, Found, NotShown
from kgents.readiness.target import Target

SCANNERS = frozenset(
    ("pip-audit", "osv", "trivy", "trivy-config", "checkov", "hadolint", "secrets", "image-secrets", "licences", "sbom")
)
"""All of `kgents scan`; a test compares."""
RATE, SECONDS = 100, 60
"""Of `kgents loadtest --profile baseline` by default; a test compares."""


def read(target: Target, name: str, command: str) -> tuple[dict[str, Any], int, str]:
    """A file of `evidence/` with its time (microseconds) and commit. Raises NotShown where `command` has not written
    it, or it tells neither.
    """
    path = target.project / "evidence" / name
    try:
        document = json.loads(path.read_text())
        commit = document["commit"]
        if not isinstance(commit, str) or not commit:
            raise ValueError("it names no commit")
        return document, _time(document), commit
    except OSError:
        raise NotShown(f"There is no evidence/{name} yet. Write it with: {command}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NotShown(f"evidence/{name} can't be read. Write it anew with: {command}") from None


def _time(document: Mapping[str, Any]) -> int:
    text = str(document.get("started") or document["date"])
    if text.endswith(" UTC"):
        return from_datetime(datetime.strptime(text, "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC))
    return from_rfc3339(text)


def scaled(target: Target) -> Found:
    """Real load drove the autoscaler up and back, and failed no request."""
    document, time, commit = read(target, "autoscaling.json", "make autoscaling")
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
    return Found(f"{way} replicas, 0 of {requests} requests failed.", seen, time, commit)


def scanned(target: Target) -> Found:
    """The last scan ran every scanner over this tree as it was committed, and found nothing HIGH or CRITICAL without an
    exception that still counts.
    """
    document, time, commit = read(target, "scan.json", "kgents scan --report evidence/scan.json")
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
    if document.get("changed") is not False:
        raise NotShown(f"What was scanned is not commit {commit[:12]} as it is. Commit, and scan again.")
    return Found(f"{len(verdicts)} scanners, nothing open.", verdicts, time, commit)


def loaded(target: Target) -> Found:
    """The load test's baseline was valid, as long and fast as the profile, met its target and failed no request."""
    document, time, commit = read(target, "load-baseline.json", "make loadtest")
    if document["valid"] is not True:
        raise NotShown(f"The run was not valid: {document.get('why') or 'it does not say why'}.")
    profile, steps, errors = str(document["profile"]["name"]), document["steps"], document["errors"]
    if profile != "baseline":
        raise NotShown(f"It is of the profile {profile}. Write it anew with: make loadtest")
    if not steps or any(step["offered"] < RATE or step["seconds"] < SECONDS for step in steps):
        raise NotShown(f"It is not of {RATE} requests a second for {SECONDS} s. Write it anew with: make loadtest")
    if type(errors) is not int:
        raise NotShown("It does not tell how many requests failed. Write it anew with: make loadtest")
    most = document["target"]["p99_ms"]
    seen = {"profile": profile, "p99_ms_wanted": most, "valid": True, "errors": errors}
    seen |= {name: document[name] for name in ("offered", "achieved", "p95_ms")}
    if errors:
        raise Broken(f"{errors} requests failed.", seen)
    if not all(step["met"] is True for step in steps):
        raise Broken(f"It missed its target: 99 of 100 answers within {most} ms.", seen)
    told = f"{seen['achieved']} requests/s, p95 {seen['p95_ms']} ms, 99 of 100 within {most} ms, no errors."
    return Found(told, seen, time, commit)


def restored(target: Target) -> Found:
    """A drill deleted a stream's messages and the database, restored both, and every message was there."""
    document, time, commit = read(target, "restore.json", "make restore-drill")
    seen = {name: document[name] for name in ("messages_before", "messages_after", "differences")}
    if seen["messages_before"] <= 0:
        raise NotShown("The drill had no messages to lose.")
    if seen["messages_after"] != seen["messages_before"]:
        raise Broken(f"{seen['messages_after']} of {seen['messages_before']} messages came back.", seen)
    if seen["differences"]:
        raise Broken(f"Ledger and meter differed in {seen['differences']} windows afterwards.", seen)
    return Found(f"All {seen['messages_before']} messages came back, reconcile found 0.", seen, time, commit)
