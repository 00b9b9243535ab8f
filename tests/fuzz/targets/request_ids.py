"""`X-Request-Id`: repeated and logged only where it is plain and no secret."""

from __future__ import annotations

import re
import string

from kgents.api.edge import usable

_PLAIN = frozenset((string.ascii_letters + string.digits + "._:-").encode())
_KEY = re.compile(rb"kg_[0-9a-z]{16}_[0-9A-Za-z]")

SEEDS = [
    b"abc-123",
    b"a" * 129,
    b"sk-abcdefgh12",
    b"kg_0123456789abcdef_" + b"A" * 49,
    b"skg_b" + b"_" * 40,
    b"Bearer abc",
    b"a\n",
    b"",
]


def check(data: bytes) -> None:
    """A header's value."""
    kept = usable(data)
    if kept is None:
        return
    assert kept.encode("latin-1") == data
    assert 1 <= len(data) <= 128
    assert set(data) <= _PLAIN
    assert not _KEY.search(data)
