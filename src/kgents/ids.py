"""Identifiers: a short prefix that names the kind, then 26 characters that sort by time of creation.

The form is ULID's (https://github.com/ulid/spec): 48 bits of milliseconds and 80 random bits in Crockford's
base 32. Sorting by id is sorting by creation, which keeps the databases' indexes append-only and gives list
routes their order.
"""

from __future__ import annotations

import os
import re
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_FORM = re.compile(r"^[a-z]{2,8}_[0-9A-HJKMNP-TV-Z]{26}$")


def new_id(prefix: str) -> str:
    """A new identifier `<prefix>_<26 characters>`."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    pairs = _PAIRS
    return f"{prefix}_" + "".join([pairs[value >> shift & 1023] for shift in range(120, -1, -10)])


def is_id(value: str, prefix: str) -> bool:
    """Whether `value` has the form of an identifier of this kind."""
    return value.startswith(prefix + "_") and _FORM.match(value) is not None
