"""What a full count came to, kept for docs/reliability.md."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path


def record(promise: str, command: str, figure: str, seed: int | str = "") -> None:
    """Append a line to the file that KGENTS_RESULTS names; nothing where it is not set."""
    target = os.environ.get("KGENTS_RESULTS")
    if target:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        line = {"promise": promise, "command": command, "figure": figure, "seed": seed, "commit": commit}
        with Path(target).open("a") as file:
            file.write(json.dumps(line) + "\n")
