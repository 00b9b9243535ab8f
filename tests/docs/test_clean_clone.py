"""The README's `make run`, from a clean clone, as a new user does it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import httpx2

from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


def test_make_run_of_a_clean_clone_serves_a_first_request(tmp_path: Path) -> None:
    clone = tmp_path / "kgents"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True, timeout=60)
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    process = subprocess.Popen(
        ["make", "--silent", "run", "ARGS=--json --port 0"],
        cwd=clone,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        answer = httpx2.post(
            f"{facts['url']}/v1/chat/completions",
            headers={"Authorization": f"Bearer {facts['api_key']}"},
            json={"model": "echo", "messages": [{"role": "user", "content": "Hello"}]},
            timeout=30,
        )
        assert answer.json()["choices"][0]["message"]["content"] == "Hello"
    finally:
        os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C in a terminal does
        process.communicate(timeout=60)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in facts["pids"].values()), what="all has ended")
