"""One process of an installation does not live on without one of its loops."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ports import free_port

LOOP_ENDS = """
import asyncio, sys
from kgents import app, config
ready = asyncio.Event()
async def ends(_parts):
    await ready.wait()
app._measure = ends
getattr(app, "run_" + sys.argv[1])(config.load(), ready.set)
"""


@pytest.mark.parametrize("kind", ["api", "worker"])
def test_a_process_that_lost_a_loop_exits_with_1(kind: str, sqlite_template: Path, tmp_path: Path) -> None:
    shutil.copy(sqlite_template, tmp_path / "kgents.db")
    environment = {
        "KGENTS_DATABASE_URL": f"sqlite:///{tmp_path / 'kgents.db'}",
        "KGENTS_PEPPER": "5ca1ab1e" * 8,
        "KGENTS_NATS_URL": f"nats://127.0.0.1:{free_port()}",
        "KGENTS_PORT": str(free_port()),
        "KGENTS_METRICS_PORT": str(free_port()),
    }
    done = subprocess.run(
        [sys.executable, "-c", LOOP_ENDS, kind],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "a loop of this process ended" in done.stdout
    assert "Traceback" not in done.stderr
