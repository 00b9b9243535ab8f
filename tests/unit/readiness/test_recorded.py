"""Evidence that other commands wrote: what it says counts, and only where it says when and of what."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from kgents.cli import loadtest
from kgents.clock import SystemClock, from_rfc3339
from kgents.load import profiles, verdict
from kgents.readiness.checks import recorded
from kgents.readiness.model import Broken, Found, NotShown
from kgents.readiness.target import Target
from kgents.scan import service

Check = Callable[[Target], Found]
WHEN = {"commit": "c0ffee", "date": "2026-11-26 21:06 UTC"}
SCALED = {**WHEN, "seen": [[0, 2, 9], [60, 8, 50], [300, 2, 9]], "requests": 5193, "failed": 0}
SCANNERS = [{"scanner": name, "verdict": "pass"} for name in service.SCANNERS]
DIGEST = "sha256:" + 64 * "1"
SCAN = {
    "commit": "c0ffee",
    "image_digests": [DIGEST],
    "changed": False,
    "started": "2026-11-26T21:06:00.000000Z",
    "scanners": SCANNERS,
    "left_out": {},
    "expired_exceptions": [],
}
STEP = {
    "offered": 100,
    "sent": 100,
    "seconds": 60,
    "requests": 6000,
    "errors": 0,
    "latency_ms": {"p99": 20.0},
    "first_token_ms": {"p99": 20.0},
    "late_ms": {"p99": 1.0},
    "generator": {"vegeta_cores": 0.1, "driver_cores": 0.1, "other_programs_cores": 0.0},
    "unwell": [],
}
LOOK = {
    "version": "1",
    "processes": {"api": 1},
    "health": {
        "status": "ok",
        "components": {name: {"status": "connected", "mode": "embedded"} for name in verdict.INTEGRATIONS},
    },
}
LOAD = {
    **WHEN,
    "valid": True,
    "profile": {"name": "baseline", "searches": False, "users": 0, "wait": 0.0},
    "target": {"p99_ms": 100.0, "commit": "c0ffee", "is_own": True},
    "machine": {"CPU": "AMD EPYC", "cores": "2"},
    "before": LOOK,
    "after": LOOK,
    "backlog": 0,
    "steps": [STEP],
    "achieved": 99.9,
    "offered": 100,
    "p95_ms": 9,
}
RESTORE = {**WHEN, "messages_before": 900, "messages_after": 900, "differences": 0}
GOOD: dict[str, tuple[Check, dict[str, Any]]] = {
    "autoscaling.json": (recorded.scaled, SCALED),
    "scan.json": (recorded.scanned, SCAN),
    "load-baseline.json": (recorded.loaded, LOAD),
    "restore.json": (recorded.restored, RESTORE),
}


def pod(app: str, image: str) -> dict[str, Any]:
    return {
        "metadata": {"name": app, "labels": {"app": app}},
        "spec": {"containers": [{"image": image}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


class Cluster:
    """One in which the API and the worker run an image."""

    def __init__(self, image: str, worker: str = "") -> None:
        self.pods = [pod("kgents-api", image), pod("kgents-worker", worker or image)]

    def get(self, _kind: str, _namespace: str, name: str) -> dict[str, Any]:
        return {"spec": {"selector": {"matchLabels": {"app": name}}}}

    def list(self, _kind: str, _namespace: str, selector: str) -> list[dict[str, Any]]:
        return [each for each in self.pods if f"app={each['metadata']['labels']['app']}" == selector]


@pytest.fixture(autouse=True)
def changed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that have changed since `c0ffee`, the one commit of the checkout."""
    files: list[str] = []
    monkeypatch.setattr(Target, "changed_since", lambda _, commit: files if commit == "c0ffee" else None)
    return files


def target(folder: Path, name: str, content: Any, cluster: Cluster | None = None) -> Target:
    path = folder / "evidence" / name
    path.parent.mkdir()
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    made = Target(SystemClock(), folder, bytes)
    made.__dict__["kubectl"] = cluster or Cluster(f"registry/kgents@{DIGEST}")
    return made


@pytest.mark.parametrize("name", GOOD)
def test_what_was_shown_is_a_pass_with_its_time_and_commit(tmp_path: Path, name: str) -> None:
    check, content = GOOD[name]
    found = check(target(tmp_path, name, content))
    assert (found.time, found.commit) == (from_rfc3339("2026-11-26T21:06:00Z"), "c0ffee")
    assert found.seen["file_sha256"] == sha256((tmp_path / "evidence" / name).read_bytes()).hexdigest()


@pytest.mark.parametrize("name", GOOD)
def test_what_was_never_recorded_is_not_shown(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotShown, match=name):
        GOOD[name][0](Target(SystemClock(), tmp_path, bytes))


DATED = '{"date": "2026-11-26 21:06 UTC"'


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"commit": "c0ffee"}', f"{DATED}}}", f'{DATED}, "commit": null}}', f'{DATED}, "commit": ""}}'],
)
@pytest.mark.parametrize("name", GOOD)
def test_what_does_not_say_when_and_of_what_is_not_shown(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(NotShown, match="can't be read"):
        GOOD[name][0](target(tmp_path, name, content))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("autoscaling.json", {**SCALED, "failed": 1}),
        ("autoscaling.json", {**SCALED, "seen": [[0, 2, 9], [60, 2, 50], [300, 2, 9]]}),
        ("autoscaling.json", {**SCALED, "seen": [[0, 2, 9], [60, 8, 50], [300, 8, 9]]}),
        ("scan.json", {**SCAN, "scanners": [{"scanner": "osv", "verdict": "fail"}]}),
        ("scan.json", {**SCAN, "expired_exceptions": [{"rule": "CKV_K8S_11"}]}),
        ("load-baseline.json", {**LOAD, "steps": [{**STEP, "errors": 3}]}),
        ("load-baseline.json", {**LOAD, "steps": [STEP, {**STEP, "met": True, "latency_ms": {"p99": 101.0}}]}),
        (
            "load-baseline.json",
            {**LOAD, "target": {**LOAD["target"], "p99_ms": 60000}, "steps": [{**STEP, "latency_ms": {"p99": 59000}}]},
        ),
        ("restore.json", {**RESTORE, "messages_after": 899}),
        ("restore.json", {**RESTORE, "differences": 1}),
    ],
)
def test_what_went_wrong_is_a_fail(tmp_path: Path, name: str, content: dict[str, Any]) -> None:
    with pytest.raises(Broken):
        GOOD[name][0](target(tmp_path, name, content))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("autoscaling.json", {**SCALED, "requests": 0}),
        ("scan.json", {**SCAN, "scanners": [{"scanner": "osv", "verdict": "unknown"}]}),
        ("scan.json", {**SCAN, "scanners": []}),
        ("scan.json", {**SCAN, "scanners": SCANNERS[:1]}),
        ("scan.json", {**SCAN, "scanners": SCANNERS[1:]}),
        ("scan.json", {**SCAN, "left_out": {"image-secrets": "no --image"}}),
        ("scan.json", {**SCAN, "changed": True}),
        ("scan.json", {**SCAN, "changed": None}),
        ("scan.json", {**SCAN, "tree": "/elsewhere"}),
        ("scan.json", {**SCAN, "environment": "/elsewhere/.venv"}),
        ("scan.json", {**SCAN, "osv_db": "mine.zip"}),
        ("scan.json", {**SCAN, "image_digests": []}),
        ("scan.json", {**SCAN, "image_digests": ["sha256:" + 64 * "2"]}),
        ("load-baseline.json", {**LOAD, "valid": False, "why": "the generator was late"}),
        ("load-baseline.json", {**LOAD, "backlog": 7}),
        ("load-baseline.json", {**LOAD, "before": {**LOOK, "processes": {}}}),
        ("load-baseline.json", {**LOAD, "steps": [{**STEP, "sent": 50}]}),
        ("load-baseline.json", {**LOAD, "steps": [{**STEP, "errors": None}]}),
        ("load-baseline.json", {**LOAD, "steps": [{**STEP, "errors": False}]}),
        ("load-baseline.json", {**LOAD, "profile": {**LOAD["profile"], "name": "smoke"}}),
        ("load-baseline.json", {**LOAD, "steps": []}),
        ("load-baseline.json", {**LOAD, "steps": [{**STEP, "offered": 1}]}),
        ("load-baseline.json", {**LOAD, "steps": [{**STEP, "seconds": 5}]}),
        ("restore.json", {**RESTORE, "messages_before": 0, "messages_after": 0}),
    ],
)
def test_what_shows_nothing_is_not_shown(tmp_path: Path, name: str, content: dict[str, Any]) -> None:
    with pytest.raises(NotShown):
        GOOD[name][0](target(tmp_path, name, content))


@pytest.mark.parametrize("commit", ["unknown", "c0ffee+", 40 * "0"])
@pytest.mark.parametrize("name", GOOD)
def test_what_is_of_no_commit_of_the_checkout_shows_nothing(tmp_path: Path, name: str, commit: str) -> None:
    check, content = GOOD[name]
    with pytest.raises(NotShown, match="HEAD does not come from"):
        check(target(tmp_path, name, {**content, "commit": commit}))


def test_a_scan_counts_while_only_reports_have_changed(tmp_path: Path, changed: list[str]) -> None:
    there = target(tmp_path, "scan.json", SCAN)
    changed += ["evidence/scan.json", "docs/saas/production-checklist.md"]
    assert recorded.scanned(there)
    changed.append("uv.lock")
    with pytest.raises(NotShown, match=r"such as uv\.lock"):
        recorded.scanned(there)


def test_every_workload_runs_the_image_that_was_scanned(tmp_path: Path) -> None:
    cluster = Cluster(f"registry/kgents@{DIGEST}", "registry/kgents:1.0")
    with pytest.raises(NotShown, match="kgents-worker runs another image"):
        recorded.scanned(target(tmp_path, "scan.json", SCAN, cluster))


def test_the_tree_that_was_scanned_may_be_named_where_it_is_this_one(tmp_path: Path) -> None:
    assert recorded.scanned(target(tmp_path, "scan.json", {**SCAN, "tree": str(tmp_path)})).detail


def test_the_scanners_are_those_of_the_scan() -> None:
    assert set(service.SCANNERS) == recorded.SCANNERS


def test_the_rate_and_length_are_those_of_the_baseline() -> None:
    (step,) = profiles.profile(profiles.Name.BASELINE).steps
    assert (step.rate, step.seconds) == (recorded.RATE, recorded.SECONDS)
    assert inspect.signature(loadtest.run).parameters["target_ms"].default == recorded.P99_MS


def test_the_repositorys_own_baseline_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Target, "changed_since", lambda _, commit: [] if re.fullmatch("[0-9a-f]+", commit) else None)
    assert "no errors" in recorded.loaded(Target(SystemClock(), Path(__file__).parents[3], bytes)).detail
