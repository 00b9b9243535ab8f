"""The official `openai` npm SDK, unmodified, against a running kgents."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import node
from tests.support.up import Up

HERE = Path(__file__).parent


@pytest.mark.node
def test_the_node_sdk(up: Up, tmp_path: Path) -> None:
    for name in ("package.json", "package-lock.json", "sdk.test.mjs"):
        shutil.copy(HERE / name, tmp_path)
    environment = {**node.environment(), "KGENTS_URL": up.url, "KGENTS_API_KEY": up.key}
    for command in ([*node.NPM, "ci", "--no-audit", "--no-fund"], [str(node.NODE), "--test", "sdk.test.mjs"]):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
