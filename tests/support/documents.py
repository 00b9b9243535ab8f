"""The blocks of documents that a reader is to type."""

from __future__ import annotations

import re
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
