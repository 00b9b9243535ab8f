"""Evidence that other commands wrote: what it says counts, and only where it says when and of what."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kgents.clock import SystemClock, from_rfc3339
from kgents.load import profiles
from kgents.readiness.checks import recorded
from kgents.readiness.model import Broken, Found, NotShown
from kgents.readiness.target import Target
from kgents.scan import service

Check = Callable[[Target], Found]
WHEN = {"commit": "c0ffee", "date": "2026-11-26 21:06 UTC"}
SCALED = {**WHEN, "seen": [[0, 2, 9], [60, 8, 50], [300, 2, 9]], "requests": 5193, "failed": 0}
SCANNERS = [{"scanner": name, "verdict": "pass"} for name in service.SCANNERS]
SCAN = {
    "commit": "c0ffee",
    "changed": False,
    "started": "2026-11-26T21:06:00.000000Z",
    "scanners": SCANNERS,
    "left_out": {},
    "expired_exceptions": [],
}
STEP = {"offered": 100, "seconds": 60, "met": True}
LOAD = {
    **WHEN,
    "valid": True,
    "profile": {"name": "baseline"},
    "target": {"p99_ms": 100.0},
    "steps": [STEP],
    "errors": 0,
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


def target(folder: Path, name: str, content: Any) -> Target:
    path = folder / "evidence" / name
    path.parent.mkdir()
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Target(SystemClock(), folder, bytes)


@pytest.mark.parametrize("name", GOOD)
def test_what_was_shown_is_a_pass_with_its_time_and_commit(tmp_path: Path, name: str) -> None:
    check, content = GOOD[name]
    found = check(target(tmp_path, name, content))
    assert (found.time, found.commit) == (from_rfc3339("2026-11-26T21:06:00Z"), "c0ffee")


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
        ("load-baseline.json", {**LOAD, "errors": 3}),
        ("load-baseline.json", {**LOAD, "steps": [STEP, {**STEP, "met": False}]}),
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
        ("load-baseline.json", {**LOAD, "valid": False, "why": "the generator was late"}),
        ("load-baseline.json", {**LOAD, "errors": None}),
        ("load-baseline.json", {**LOAD, "errors": False}),
        ("load-baseline.json", {**LOAD, "profile": {"name": "smoke"}}),
        ("load-baseline.json", {**LOAD, "steps": []}),
        ("load-baseline.json", {**LOAD, "steps": [{**STEP, "offered": 1}]}),
        ("load-baseline.json", {**LOAD, "steps": [{**STEP, "seconds": 5}]}),
        ("restore.json", {**RESTORE, "messages_before": 0, "messages_after": 0}),
    ],
)
def test_what_shows_nothing_is_not_shown(tmp_path: Path, name: str, content: dict[str, Any]) -> None:
    with pytest.raises(NotShown):
        GOOD[name][0](target(tmp_path, name, content))


def test_the_tree_that_was_scanned_may_be_named_where_it_is_this_one(tmp_path: Path) -> None:
    assert recorded.scanned(target(tmp_path, "scan.json", {**SCAN, "tree": str(tmp_path)})).detail


def test_the_scanners_are_those_of_the_scan() -> None:
    assert set(service.SCANNERS) == recorded.SCANNERS


def test_the_rate_and_length_are_those_of_the_baseline() -> None:
    (step,) = profiles.profile(profiles.Name.BASELINE).steps
    assert (step.rate, step.seconds) == (recorded.RATE, recorded.SECONDS)


def test_the_repositorys_own_baseline_is_one() -> None:
    assert "no errors" in recorded.loaded(Target(SystemClock(), Path(__file__).parents[3], bytes)).detail
