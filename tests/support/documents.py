"""The blocks of documents that a reader is to type, and what comes of them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def blocks(document: str, language: str, section: str = "") -> list[str]:
    """The blocks of a language, in order: of a whole document, or of what is under a heading up to the next one."""
    text = (ROOT / document).read_text()
    if section:
        _, found, text = text.partition(f"\n{section}\n")
        assert found, f"{document} has no heading {section!r}"
        text = re.split(r"^#+ ", text, maxsplit=1, flags=re.MULTILINE)[0]
    return [body for kind, body in _BLOCK.findall(text) if kind == language]


def typed(
    block: str, environment: Mapping[str, str], folder: Path | None = None, *, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """What comes of a block that is typed into a shell in a folder (here by default)."""
    command = ["bash", "-euo", "pipefail", "-c", block]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=seconds)
