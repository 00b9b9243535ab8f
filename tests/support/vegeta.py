"""vegeta, built once; and vegetas with a planted fault."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.tools import left_out

ROOT = Path(__file__).parents[2]


def build() -> Path:
    """The program, as scripts/vegeta builds it. Skips the test without Go."""
    if shutil.which("go") is None:
        left_out("Go is not installed, and builds vegeta")
    done = subprocess.run([ROOT / "scripts" / "vegeta"], capture_output=True, text=True, timeout=600, check=True)
    return Path(done.stdout.strip())


def slowed(program: Path, folder: Path) -> Path:
    """A vegeta that makes half of the load that it is asked for."""
    path = folder / "vegeta"
    path.write_text(
        "#!/usr/bin/env python3\n"
        "import os, re, sys\n"
        "halved = lambda found: f'-rate={int(found[1]) // 2}/'\n"
        f"os.execv({str(program)!r}, ['vegeta', *(re.sub(r'^-rate=(\\d+)/', halved, word) for word in sys.argv[1:])])\n"
    )
    path.chmod(0o755)
    return path
