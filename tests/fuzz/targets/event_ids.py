"""`Last-Event-ID`: a whole number of at most 18 digits, nothing, or refused."""

from __future__ import annotations

from kgents.api.routes.runs import parse_event_id
from kgents.errors import InvalidRequest

SEEDS = [b"", b"0", b"1", b"0017", b"999999999999999999", b"1000000000000000000", b"-1", b"1e3", b" 1", "٣".encode()]


def check(data: bytes) -> None:
    """As a header holds it (Latin-1), and as text."""
    for text in (data.decode("latin-1"), data.decode("utf-8", "replace")):
        right = len(text) <= 18 and all(character in "0123456789" for character in text)
        try:
            sequence = parse_event_id(text)
        except InvalidRequest:
            assert not right
            continue
        assert right
        assert 0 <= sequence < 10**18
        assert str(sequence) == (text.lstrip("0") or "0")
