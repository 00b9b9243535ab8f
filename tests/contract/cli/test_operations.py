"""The operator's commands that need no kgents: what they answer, and what they say where something is missing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kgents.deploy.kubectl import Kubectl, Refused
from kgents.load.capacity import conclude
from kgents.load.sizing import Demand
from tests.support.cli import Cli
from tests.support.loads import measured, report, stress
from tests.support.ports import free_port

STEP = "second,requests_per_second\n0,200\n300,200\n301,2000\n900,2000\n901,200\n1800,200\n"


@pytest.fixture
def load(tmp_path: Path) -> Path:
    path = tmp_path / "load.csv"
    path.write_text(STEP)
    return path


def test_the_autoscaler_follows_a_load(stranger: Cli, load: Path) -> None:
    found = stranger.json("autoscale", "simulate", "--load", load)
    assert found["steps"][0] == {"second": 0, "replicas": 2}
    assert found["summary"]["most_replicas"] > 2
    assert {step["replicas"] for step in found["steps"]} <= set(range(2, 11))


def test_the_autoscaler_is_drawn_in_the_terminal_and_as_a_picture(stranger: Cli, load: Path, tmp_path: Path) -> None:
    done = stranger("autoscale", "simulate", "--load", load, "--png", tmp_path / "load.png")
    assert done.status == 0, done
    assert all(name in done.stdout for name in ("requests/s", "replicas", "CPU %", "latency ms"))
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0,200\n10,many\n", "line 2: '10,many'"),
        ("0,200\n", "two points at least"),
        ("10,200\n0,200\n", "each later than the one before"),
        ("0,1\n700000,1\n", "a week"),
        ("0,1\n1e12,1\n", "line 2: '1e12,1'"),
        ("0,1\ninf,1\n", "line 2: 'inf,1'"),
        ("0,nan\n9,1\n", "line 1: '0,nan'"),
        ("0,-5\n9,1\n", "line 1: '0,-5'"),
        ("0,1e308\n9,1\n", "line 1: '0,1e308'"),
        ("0," + 200_000 * "1", "is not CSV"),
    ],
    ids=range(10),
)
def test_a_load_that_is_none(stranger: Cli, load: Path, text: str, complaint: str) -> None:
    load.write_text(text)
    assert complaint in stranger("autoscale", "simulate", "--load", load).complaint


def test_an_autoscaler_that_is_none(stranger: Cli, load: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "hpa.yaml"
    manifest.write_text("kind: Deployment\n")
    assert (
        "0 HorizontalPodAutoscalers" in stranger("autoscale", "simulate", "--load", load, "--hpa", manifest).complaint
    )


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [("hello", "not built as"), ("{maxReplicas: x}", "maxReplicas is 'x'"), ("{maxReplicas: 3}", "no 'metrics'")],
)
def test_an_autoscaler_without_what_it_needs(
    stranger: Cli, load: Path, tmp_path: Path, spec: str, complaint: str
) -> None:
    manifest = tmp_path / "hpa.yaml"
    manifest.write_text(f"apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nspec: {spec}\n")
    assert complaint in stranger("autoscale", "simulate", "--load", load, "--hpa", manifest).complaint


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"cpu": 1}, "it has cpu"),
        ([], "not a JSON object of numbers"),
        ({"cpu_per_request": "x", "request": 500, "limit": 1000}, "cpu_per_request is 'x'"),
    ],
)
def test_a_capacity_that_is_none(stranger: Cli, load: Path, tmp_path: Path, document: object, complaint: str) -> None:
    capacity = tmp_path / "pod.json"
    capacity.write_text(json.dumps(document))
    assert complaint in stranger("autoscale", "simulate", "--load", load, "--capacity", capacity).complaint


def test_without_kubectl(stranger: Cli, tmp_path: Path) -> None:
    assert "no kubectl" in stranger("secrets", "check", PATH=str(tmp_path)).complaint
    assert "no kubectl" in stranger("deploy", "--overlay", tmp_path, PATH=str(tmp_path)).complaint
    assert "no kubectl" in stranger("deploy", "status", "--overlay", tmp_path, PATH=str(tmp_path)).complaint


@pytest.fixture
def kubectl(tmp_path: Path) -> Callable[[bytes], dict[str, str]]:
    """Makes a kubectl of these bytes; the variables with which it is the one that is found."""

    def make(program: bytes) -> dict[str, str]:
        path = tmp_path / "bin" / "kubectl"
        path.parent.mkdir()
        path.write_bytes(program)
        path.chmod(0o755)
        return {"PATH": f"{path.parent}:{os.environ['PATH']}"}

    return make


def test_a_kubectl_that_is_no_program(stranger: Cli, kubectl: Callable[[bytes], dict[str, str]]) -> None:
    complaint = stranger("secrets", "check", **kubectl(b"\x00\x01")).complaint
    assert "bin/kubectl can't be run: Exec format error. Install kubectl anew" in complaint


@pytest.mark.parametrize(
    ("printed", "why"),
    [
        (b"hello", "it is not JSON"),
        (b"\xff", "it is not UTF-8"),
        (b"[]", "it is not an object"),
        (b"5", "not an object"),
    ],
)
def test_a_secret_that_kubectl_prints_otherwise(
    stranger: Cli, kubectl: Callable[[bytes], dict[str, str]], printed: bytes, why: str
) -> None:
    complaint = stranger("secrets", "check", **kubectl(b"#!/bin/sh\nprintf %s '" + printed + b"'\n")).complaint
    assert why in complaint
    assert "on the PATH" in complaint


@pytest.mark.parametrize("command", [("deploy", "--dry-run"), ("deploy", "status")], ids=" ".join)
@pytest.mark.parametrize(
    ("printed", "why"),
    [
        (b"a: [", "it is not YAML"),
        (b"a: 2026-99-99", "it is not YAML"),
        (b"\xff", "it is not UTF-8"),
        (b"hello", "not a list of Kubernetes objects"),
        (b"kind: Secret", "not a list of Kubernetes objects"),
    ],
)
def test_an_overlay_that_kubectl_prints_otherwise(
    stranger: Cli,
    kubectl: Callable[[bytes], dict[str, str]],
    tmp_path: Path,
    command: tuple[str, ...],
    printed: bytes,
    why: str,
) -> None:
    environment = kubectl(b"#!/bin/sh\nprintf %s '" + printed + b"'\n")
    complaint = stranger(*command, "--overlay", tmp_path, **environment).complaint
    assert why in complaint
    assert "on the PATH" in complaint


def test_a_list_that_kubectl_prints_otherwise(kubectl: Callable[[bytes], dict[str, str]], tmp_path: Path) -> None:
    kubectl(b"#!/bin/sh\necho '{\"items\": [5]}'\n")
    with pytest.raises(Refused, match="not a list of objects"):
        Kubectl(program=str(tmp_path / "bin" / "kubectl")).list("pods", "kgents-agents")


def test_a_log_may_hold_bytes_that_are_no_text(kubectl: Callable[[bytes], dict[str, str]], tmp_path: Path) -> None:
    kubectl(b"#!/bin/sh\nprintf 'a\\377b'\n")
    assert Kubectl(program=str(tmp_path / "bin" / "kubectl")).logs("kgents-agents", "pod") == "a\ufffdb"


def test_a_deployment_of_nothing(stranger: Cli) -> None:
    done = stranger("deploy")
    assert done.status == 2
    assert "--overlay" in done.stderr


def test_a_backup_without_a_bus(stranger: Cli, tmp_path: Path) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    assert "NATS" in stranger("backup", tmp_path / "copies", KGENTS_NATS_URL=url).complaint


@pytest.mark.parametrize(
    "url", ["", "nats://127.0.0.1:abc", "nats://u:secret@[::1", "nats://127.0.0.1,", "nats://:4222"]
)
def test_an_address_of_the_bus_that_is_none(stranger: Cli, tmp_path: Path, url: str) -> None:
    complaint = stranger("backup", tmp_path / "copies", KGENTS_NATS_URL=url).complaint
    assert "The setting KGENTS_NATS_URL can't be used: it is not nats://HOST:PORT" in complaint
    assert "secret" not in complaint


def test_a_backup_where_there_can_be_none(stranger: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert stranger("backup", tmp_path / "file").status == 2
    assert "/proc/x: No such file or directory" in stranger("backup", "/proc/x").complaint


def test_a_restore_without_a_copy(stranger: Cli, tmp_path: Path) -> None:
    assert "There is no copy" in stranger("restore", tmp_path).complaint


@pytest.mark.parametrize("text", ["[]", "{", "5"])
def test_a_restore_of_what_is_no_copy(stranger: Cli, tmp_path: Path, text: str) -> None:
    (tmp_path / "sums.json").write_text(text)
    assert f"{tmp_path} is no copy of the streams" in stranger("restore", tmp_path).complaint


def test_load_goes_to_no_other_machine_unless_it_is_said(stranger: Cli) -> None:
    target = {"KGENTS_URL": "http://192.0.2.7:8080", "KGENTS_ADMIN_KEY": "key"}
    complaint = stranger("loadtest", "--vegeta", "/bin/true", **target).complaint
    assert "'192.0.2.7' is not this machine" in complaint
    assert "--the-host-is-mine" in complaint


@pytest.mark.parametrize("url", ["127.0.0.1:1", "http://[::1", "http://127.0.0.1:x", "ftp://127.0.0.1"])
@pytest.mark.parametrize("option", ["--url", "--metrics"])
def test_load_goes_to_an_address(stranger: Cli, option: str, url: str) -> None:
    target = {"KGENTS_URL": "http://127.0.0.1:9", "KGENTS_ADMIN_KEY": "key"}
    complaint = stranger("loadtest", "--vegeta", "/bin/true", option, url, **target).complaint
    assert f"'{url}' is not an address. It looks like http://" in complaint


def test_load_is_made_by_a_program(stranger: Cli, tmp_path: Path) -> None:
    assert f"{tmp_path} is no program" in stranger("loadtest", "--up", "--vegeta", tmp_path).complaint


def test_load_needs_a_generator(stranger: Cli, tmp_path: Path) -> None:
    complaint = stranger("loadtest", "--up", PATH=str(tmp_path)).complaint
    assert "vegeta is not on the PATH" in complaint
    assert "scripts/vegeta" in complaint


def test_load_needs_an_administrators_key(stranger: Cli) -> None:
    complaint = stranger("loadtest", "--vegeta", "/bin/true", KGENTS_URL="http://127.0.0.1:9").complaint
    assert "KGENTS_ADMIN_KEY" in complaint


def test_load_goes_to_one_kgents(stranger: Cli) -> None:
    assert stranger("loadtest", "--up", "--url", "http://127.0.0.1:9", "--vegeta", "/bin/true").status == 2


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    """What a capacity measured, with planted figures."""
    path = tmp_path / "capacity.json"
    path.write_text(json.dumps(conclude(measured(), stress(), Demand())))
    return path


def test_a_component_follows_from_the_evidence_and_drift_is_seen(stranger: Cli, evidence: Path, tmp_path: Path) -> None:
    component = tmp_path / "component"
    missing = stranger("capacity", "check", evidence, component)
    assert (missing.status, "is not there" in missing.stdout) == (1, True)

    assert stranger("capacity", "write", evidence, component).status == 0
    assert stranger("capacity", "check", evidence, component).status == 0

    path = component / "kustomization.yaml"
    path.write_text(path.read_text().replace("value: 70", "value: 80"))
    assert stranger("capacity", "check", evidence, component).status == 1


def test_numbers_that_were_put_into_the_evidence_by_hand_are_seen(
    stranger: Cli, evidence: Path, tmp_path: Path
) -> None:
    found = json.loads(evidence.read_text())
    found["proposal"]["most"] += 1
    evidence.write_text(json.dumps(found))
    stranger("capacity", "write", evidence, tmp_path / "component")

    done = stranger("capacity", "check", evidence, tmp_path / "component")

    assert done.status == 1
    assert "does not follow from the measurements" in done.stdout


def test_the_numbers_for_another_demand(stranger: Cli, evidence: Path, tmp_path: Path) -> None:
    done = stranger("capacity", "conclude", evidence, "--peak", "9000", "--out", tmp_path / "out")
    assert done.status == 0, done
    found = json.loads((tmp_path / "out" / "capacity.json").read_text())
    assert found["proposal"]["most"] > json.loads(evidence.read_text())["proposal"]["most"]
    assert f"9000 requests/s at the peak: {found['proposal']['most']} pods" in done.stdout


def test_the_simulator_takes_what_a_capacity_measured(stranger: Cli, load: Path, evidence: Path) -> None:
    found = stranger.json("autoscale", "simulate", "--load", load, "--capacity", evidence)
    assert found["summary"]["most_replicas"] > 2


def test_a_file_that_is_no_report(stranger: Cli, load: Path, tmp_path: Path) -> None:
    assert "is no report of this version" in stranger("capacity", "write", load, tmp_path / "component").complaint


@pytest.mark.parametrize("command", ["conclude", "write", "check"])
@pytest.mark.parametrize(
    ("document", "why"),
    [
        (stress(), "is no report of a capacity: it has no points"),
        ({"schema": 2}, "its schema is 2"),
        ([], "is no report of this version"),
        (conclude(measured(), stress(), Demand()) | {"stress": {}, "demand": {}}, "it has no 'valid'"),
    ],
    ids=["a load test", "another version", "no object", "cut"],
)
def test_a_report_that_is_no_capacity(stranger: Cli, tmp_path: Path, command: str, document: object, why: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(document))
    more = () if command == "conclude" else (tmp_path / "component",)
    complaint = stranger("capacity", command, path, *more).complaint
    assert str(path) in complaint
    assert why in complaint


def test_a_demand_that_is_none(stranger: Cli, evidence: Path, tmp_path: Path) -> None:
    conclude = ("capacity", "conclude", evidence, "--out", tmp_path / "out")
    assert stranger(*conclude, "--expected", "inf").status == 2
    complaint = stranger(*conclude, "--expected", "5000", "--peak", "10").complaint
    assert "5000 requests/s are expected, and the peak is 10" in complaint
    assert not (tmp_path / "out").exists()


def test_a_folder_to_write_into_that_is_a_file(stranger: Cli, evidence: Path) -> None:
    for command in (("conclude", evidence, "--out", evidence), ("write", evidence, evidence)):
        done = stranger("capacity", *command)
        assert (done.status, "is a file" in done.stderr) == (2, True)


def test_a_page_of_reports(stranger: Cli, evidence: Path, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "load-test-baseline.md"
    (tmp_path / "load-stress.json").write_text(json.dumps(stress()))

    assert stranger("loadtest", "page", evidence.parent, page).status == 0

    text = page.read_text()
    assert "The knee: 200 requests/s met the target" in text
    for name in ("load-stress.png", "capacity.png"):
        assert f"]({name})" in text
        assert (page.parent / name).read_bytes().startswith(b"\x89PNG")


def test_the_page_takes_a_capacity_of_the_same_machine_only(stranger: Cli, evidence: Path, tmp_path: Path) -> None:
    found = json.loads(evidence.read_text())
    evidence.write_text(json.dumps(found | {"machine": {"cores": "64"}}))
    (tmp_path / "load-stress.json").write_text(json.dumps(stress()))

    complaint = stranger("loadtest", "page", evidence.parent, tmp_path / "page.md").complaint

    assert "different machines" in complaint


def test_a_report_that_is_not_valid_is_not_taken_for_the_page(stranger: Cli, tmp_path: Path) -> None:
    found = report(valid=False, reasons=[{"code": "generator-rate", "text": "the generator sent too little"}])
    (tmp_path / "load-baseline.json").write_text(json.dumps(found))

    assert "the generator sent too little" in stranger("loadtest", "page", tmp_path, tmp_path / "page.md").complaint
    assert not (tmp_path / "page.md").exists()


def test_a_page_without_reports(stranger: Cli, tmp_path: Path) -> None:
    assert "There is no load-*.json" in stranger("loadtest", "page", tmp_path, tmp_path / "page.md").complaint


@pytest.mark.parametrize(
    ("document", "why"),
    [({"schema": 1}, "it has no command, began"), (report(machine=5), "is no report of this version")],
    ids=["empty", "damaged"],
)
def test_a_page_of_what_is_no_report(stranger: Cli, tmp_path: Path, document: object, why: str) -> None:
    (tmp_path / "load-smoke.json").write_text(json.dumps(document))
    complaint = stranger("loadtest", "page", tmp_path, tmp_path / "page.md").complaint
    assert str(tmp_path) in complaint
    assert why in complaint


def test_a_page_where_there_can_be_none(stranger: Cli, tmp_path: Path) -> None:
    (tmp_path / "load-stress.json").write_text(json.dumps(stress()))
    assert "/proc/x: No such file or directory" in stranger("loadtest", "page", tmp_path, "/proc/x/page.md").complaint
