"""What other commands of kgents showed and wrote down: each file names its commit and its time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kgents.clock import from_datetime, from_rfc3339
from kgents.readiness.model import Broken, Found, NotShown
from kgents.readiness.target import Target


def read(target: Target, name: str, command: str) -> tuple[dict[str, Any], int, str]:
    """A file of `evidence/` with its time (microseconds) and commit. Raises NotShown where `command` has not written
    it, or it tells neither.
    """
    path = target.project / "evidence" / name
    try:
        document = json.loads(path.read_text())
        return document, _time(document), str(document["commit"])
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
    """The last scan ran every scanner and found nothing HIGH or CRITICAL without an exception that still counts."""
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
    if left_out := sorted(document["left_out"]):
        raise NotShown(f"Left out: {', '.join(left_out)}. Scan without --only, and with --image.")
    return Found(f"{len(verdicts)} scanners, nothing open.", verdicts, time, commit)


def loaded(target: Target) -> Found:
    """The load test's baseline was valid and failed no request."""
    document, time, commit = read(target, "load-baseline.json", "make loadtest")
    seen = {name: document.get(name) for name in ("profile", "valid", "why", "offered", "achieved", "errors", "p95_ms")}
    if document["valid"] is not True:
        raise NotShown(f"The run was not valid: {document.get('why') or 'it does not say why'}.")
    if document["errors"]:
        raise Broken(f"{document['errors']} requests failed.", seen)
    return Found(f"{seen['achieved']} requests/s, p95 {seen['p95_ms']} ms, no errors.", seen, time, commit)


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
