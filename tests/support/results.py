"""What a full count came to, kept for docs/reliability.md."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path


def record(promise: str, command: str, figure: str, seed: int | str = "") -> None:
    """Append a line to the file that KGENTS_RESULTS names; nothing where it is not set."""
    target = os.environ.get("KGENTS_RESULTS")
    if target:
        commit = _git("rev-parse", "HEAD")
        if _git("status", "--porcelain", "--untracked-files=no"):
            commit += "-dirty"
        now = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"promise": promise, "command": command, "figure": figure, "seed": seed, "commit": commit, "at": now}
        with Path(target).open("a") as file:
            file.write(json.dumps(line) + "\n")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()
