"""What the documents tell a user to type works as it stands there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import vegeta
from tests.support.documents import blocks, typed
from tests.support.up import Up

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A kgents that the documents' blocks are run against, in their order."""
    running = Up(tmp_path_factory.mktemp("docs")).start()
    yield running
    running.stop()


def environment(up: Up) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "KGENTS_URL": up.url,
        "KGENTS_API_KEY": up.key,
        "KGENTS_ADMIN_KEY": str(up.facts["admin_key"]),
        "KGENTS_DATA_DIR": str(up.data),
    }


@pytest.mark.parametrize("block", blocks("docs/quickstart.md", "sh"))
def test_a_shell_block_of_the_quickstart(up: Up, block: str) -> None:
    if "reconcile" in block:
        up.settled()
    done = typed(block, environment(up))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() or done.stderr.strip()


@pytest.mark.parametrize("block", blocks("docs/quickstart.md", "python"))
def test_a_python_block_of_the_quickstart(up: Up, block: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block], env=environment(up), capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.strip()) == (0, "word by word"), done.stderr


@pytest.mark.parametrize("block", blocks("docs/operations/observe.md", "sh"))
def test_a_shell_block_of_seeing_what_happens(up: Up, block: str) -> None:
    done = typed(block, environment(up))
    assert (done.returncode, bool(done.stdout.strip())) == (0, True), done.stderr


@pytest.mark.parametrize("block", blocks("docs/operations/tenants.md", "sh"))
def test_a_shell_block_of_export_and_erasure(up: Up, tmp_path: Path, block: str) -> None:
    done = typed(block, environment(up), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() or done.stderr.strip()


@pytest.mark.parametrize("block", blocks("docs/operations/billing.md", "sh"))
def test_a_shell_block_of_billing(up: Up, tmp_path: Path, block: str) -> None:
    done = typed(block, environment(up), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() or done.stderr.strip()


@pytest.mark.parametrize("block", blocks("docs/saas/autoscaling.md", "sh"))
def test_a_shell_block_of_autoscaling(tmp_path: Path, block: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = typed(block, {**os.environ, "PATH": path}, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "most_replicas" in done.stdout


@pytest.mark.parametrize("block", blocks("docs/saas/security.md", "sh"))
def test_a_shell_block_of_security(block: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = typed(block, {**os.environ, "PATH": path}, ROOT)
    assert done.returncode == 0, done.stderr
    assert "verdict: pass" in done.stderr


@pytest.mark.parametrize("block", blocks("docs/operations/load.md", "sh"))
def test_a_shell_block_of_load(tmp_path: Path, block: str) -> None:
    path = os.pathsep.join([str(vegeta.build().parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = typed(block, {**os.environ, "PATH": path}, tmp_path, seconds=180)
    document = json.loads((tmp_path / "reports" / "load-smoke.json").read_text())
    # A machine that has more to do than this says so, and nothing else may be said.
    assert {reason["code"] for reason in document["reasons"]} <= {"generator-late", "noise"}, done
    assert done.returncode == (0 if document["valid"] else 1)
    assert done.stdout.startswith("valid: " if document["valid"] else "NOT VALID")
    assert "smoke: 20 requests/s for 5 s" in done.stderr
    assert "\x1b" not in done.stderr
    assert document["steps"][0]["processes"].keys() == {"up", "api", "worker", "nats", "meter"}
    assert document["target"]["commit"] != "unknown"
    assert "| chat |" in (tmp_path / "reports" / "load-smoke.md").read_text()
    assert (tmp_path / "reports" / "load-smoke.png").read_bytes().startswith(b"\x89PNG")


def test_the_links_of_the_documents_lead_somewhere() -> None:
    link = re.compile(r"\]\((?!https?:|#)([^)#]+)[^)]*\)")
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{document.name}: {target}"
        for document in documents
        for target in link.findall(document.read_text())
        if not (document.parent / target).exists()
    ]
    assert not broken
