"""`X-Request-Id`: repeated and logged only where it is plain and no secret."""

from __future__ import annotations

import string

from kgents.api.edge import usable

_PLAIN = frozenset((string.ascii_letters + string.digits + "._:-").encode())

SEEDS = [b"abc-123", b"a" * 129, b"sk-abcdefgh12", b"kg_0123456789abcdef_" + b"A" * 49, b"Bearer abc", b"a\n", b""]


def check(data: bytes) -> None:
    """A header's value."""
    kept = usable(data)
    if kept is None:
        return
    assert kept.encode("latin-1") == data
    assert 1 <= len(data) <= 128
    assert set(data) <= _PLAIN
    assert b"kg_" not in data or len(data.partition(b"kg_")[2]) < 18 or data.partition(b"kg_")[2][16:17] != b"_"
