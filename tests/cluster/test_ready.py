"""`kgents ready` in a real cluster: what holds is a pass, and each thing that is broken on purpose is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.cluster.installation import NAMESPACE, Installation
from tests.support.waiting import wait_until

HOLDING = ("A1", "A2", "A3", "A6", "B1", "C1", "D2", "D3", "D4", "D6", "D7", "L1", "L7", "L8")
Breaking = Callable[[Installation], AbstractContextManager[None]]


def verdicts(
    installation: Installation, folder: Path, *only: str, options: tuple[str, ...] = ()
) -> dict[str, dict[str, str]]:
    """What `kgents ready` says of criteria and of those that they need."""
    done = installation.cluster.kgents(
        *("ready", f"--url={installation.url}", f"--ledger={folder}", "--output=json"),
        *(f"--only={each}" for each in only),
        *options,
        KGENTS_ADMIN_KEY=installation.admin_key,
        KGENTS_METER_TOKEN=installation.secret("kgents-meter-secrets", "KGENTS_METER_TOKEN"),
    )
    return {each["criterion"]: each for each in json.loads(done.stdout)}


def test_what_holds_is_a_pass(installation: Installation, tmp_path: Path) -> None:
    wait_until(  # pods that have just started have no metrics yet
        lambda: verdicts(installation, tmp_path, "C1")["C1"]["verdict"] == "pass", seconds=90, what="metrics are there"
    )
    wait_until(  # the first look subscribes somebody, and that one's invoice is made when the look is over
        lambda: verdicts(installation, tmp_path, "L8")["L8"]["verdict"] == "pass", seconds=90, what="an invoice is made"
    )
    found = verdicts(installation, tmp_path, *HOLDING)
    assert {name: each["detail"] for name, each in found.items() if each["verdict"] != "pass"} == {}
    assert set(found) == set(HOLDING)


def test_a_killed_pod_fails_no_request(installation: Installation, tmp_path: Path) -> None:
    found = verdicts(installation, tmp_path, "A7", options=("--disrupt",))
    assert {name: each["detail"] for name, each in found.items() if each["verdict"] != "pass"} == {}


@contextmanager
def without(installation: Installation, kind: str, name: str) -> Iterator[None]:
    """Without an object."""
    kept = installation.cluster.get(kind, name)
    for field in ("resourceVersion", "uid", "managedFields", "creationTimestamp"):
        kept["metadata"].pop(field, None)
    installation.cluster.kubectl("delete", kind, name, f"-n{NAMESPACE}")
    try:
        yield
    finally:
        installation.cluster.apply(kept)


@contextmanager
def patched(installation: Installation, what: str, patch: object, back: object) -> Iterator[None]:
    """With an object changed by a merge patch."""
    command = ("patch", *what.split("/"), f"-n{NAMESPACE}", "--type=merge", "--patch")
    installation.cluster.kubectl(*command, json.dumps(patch))
    try:
        yield
    finally:
        installation.cluster.kubectl(*command, json.dumps(back))


def labelled(level: str) -> object:
    return {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}}


BROKEN: dict[str, Breaking] = {
    "C1": lambda it: without(it, "horizontalpodautoscaler", "kgents-api"),
    "D2": lambda it: patched(it, f"namespace/{NAMESPACE}", labelled("baseline"), labelled("restricted")),
    "D3": lambda it: without(it, "networkpolicy", "kgents-default-deny"),
    "D4": lambda it: patched(
        it,
        "secret/kgents-api-secrets",
        {"data": {"KGENTS_PEPPER": "c2hvcnQ="}},
        {"data": {"KGENTS_PEPPER": it.cluster.get("secret", "kgents-api-secrets")["data"]["KGENTS_PEPPER"]}},
    ),
    "L1": lambda it: without(it, "poddisruptionbudget", "kgents-api"),
}


@pytest.mark.parametrize("criterion", BROKEN)
def test_what_is_broken_is_a_fail(installation: Installation, tmp_path: Path, criterion: str) -> None:
    with BROKEN[criterion](installation):
        found = verdicts(installation, tmp_path, criterion)[criterion]
    assert found["verdict"] == "fail", found["detail"]


def test_a_workload_that_is_away_is_a_fail_and_what_needs_it_is_unknown(
    installation: Installation, tmp_path: Path
) -> None:
    with patched(installation, "deployment/kgents-worker", {"spec": {"replicas": 0}}, {"spec": {"replicas": 2}}):
        found = verdicts(installation, tmp_path, "A3")
    installation.cluster.kubectl("rollout", "status", "deployment/kgents-worker", f"-n{NAMESPACE}", "--timeout=60s")
    assert {name: each["verdict"] for name, each in found.items()} == {"A1": "fail", "A2": "unknown", "A3": "unknown"}
