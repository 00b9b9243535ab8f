"""The operator's commands that need no kgents: what they answer, and what they say where something is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import Cli
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
    ],
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


def test_a_capacity_that_is_none(stranger: Cli, load: Path, tmp_path: Path) -> None:
    capacity = tmp_path / "pod.json"
    capacity.write_text(json.dumps({"cpu": 1}))
    assert "pod.json" in stranger("autoscale", "simulate", "--load", load, "--capacity", capacity).complaint


def test_without_kubectl(stranger: Cli, tmp_path: Path) -> None:
    assert "no kubectl" in stranger("secrets", "check", PATH=str(tmp_path)).complaint
    assert "no kubectl" in stranger("deploy", "--overlay", tmp_path, PATH=str(tmp_path)).complaint
    assert "no kubectl" in stranger("deploy", "status", "--overlay", tmp_path, PATH=str(tmp_path)).complaint


def test_a_deployment_of_nothing(stranger: Cli) -> None:
    done = stranger("deploy")
    assert done.status == 2
    assert "--overlay" in done.stderr


def test_a_backup_without_a_bus(stranger: Cli, tmp_path: Path) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    assert "NATS" in stranger("backup", tmp_path / "copies", KGENTS_NATS_URL=url).complaint


def test_a_restore_without_a_copy(stranger: Cli, tmp_path: Path) -> None:
    assert "There is no copy" in stranger("restore", tmp_path).complaint
