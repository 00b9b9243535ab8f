"""API keys: a token is taken only when it is one, by an independent reading of its form and checksum."""

from __future__ import annotations

import string
from zlib import crc32

from kgents.clock import ManualClock
from kgents.tenants import keys

_PEPPERS = keys.parse_peppers("v1:" + "ab" * 32)
_ID = frozenset("0123456789abcdefghjkmnpqrstvwxyz")
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase

SEEDS = [
    b"kg_0123456789abcdef_" + b"A" * 49,
    b"Bearer kg_",
    *(keys.generate(_PEPPERS, ManualClock(millis * 1000)).token.encode() for millis in (0, 1_700_000_000_000)),
]


def check(data: bytes) -> None:
    """Tokens as they come, and the same with the right checksum put to them."""
    _check(data.decode("latin-1"))
    body = data[:63].decode("latin-1")
    if body.isascii():
        _check(body + _checksum(body))


def _check(token: str) -> None:
    parsed = keys.parse(token)
    assert parsed == keys.parse(token.encode("latin-1"))
    head, _, rest = token.partition("_")
    key_id, _, secret = rest.partition("_")
    right = (
        head == "kg"
        and len(key_id) == 16
        and len(secret) == 49
        and set(key_id) <= _ID
        and set(secret) <= set(_BASE62)
        and secret[43:] == _checksum(token[:-6])
    )
    assert (parsed is not None) == right
    if parsed is not None:
        assert (parsed.key_id, parsed.secret) == (key_id, secret[:43])
        assert token[keys.ID] == key_id
        assert parsed.secret not in repr(parsed)


def _checksum(body: str) -> str:
    value, found = crc32(body.encode("ascii")), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        found = _BASE62[digit] + found
    return found
