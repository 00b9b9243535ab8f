"""What docs/operations tells an operator to type works as it stands there."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.installation import ROOT, Installation
from tests.support.documents import blocks

DEPLOY, UPGRADE = "docs/operations/deploy.md", "docs/operations/upgrade.md"


@contextmanager
def second_terminal(installation: Installation, block: str) -> Iterator[None]:
    """A block that goes on until Ctrl-C; it says when it serves."""
    command = ["bash", "-c", f"exec {block.strip()}"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=installation.cluster.environment, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            assert "Forwarding from" in process.stdout.readline()
            yield
        finally:
            process.send_signal(signal.SIGINT)


def test_a_first_request(installation: Installation, tmp_path: Path) -> None:
    terminal, *others = blocks(DEPLOY, "sh", "### A first request")
    said = ""
    with second_terminal(installation, terminal):
        for block in others:
            done = installation.typed(block, KGENTS_CONFIG_DIR=str(tmp_path))
            assert done.returncode == 0, f"{block}\n{done.stderr}"
            said += done.stdout
    assert "Hello from the cluster" in said


def test_what_is_deployed_is_ready(installation: Installation) -> None:
    said = installation.follow(DEPLOY, "### Deploy")
    assert "deployment/kgents-api" in said


def test_an_upgrade(installation: Installation) -> None:
    said = installation.follow(UPGRADE, "## kgents")
    assert "asked through service/kgents-api:" in said


def test_restarts_by_hand(installation: Installation) -> None:
    assert "roll" in installation.follow(UPGRADE, "## NATS")
    assert "successfully rolled out" in installation.follow(UPGRADE, "## Secrets")
