"""Identifiers: a short prefix that names the kind, then 26 characters that sort by time of creation.

The form is ULID's (https://github.com/ulid/spec): 48 bits of milliseconds and 80 random bits in Crockford's
base 32. Sorting by id is sorting by creation, which keeps the databases' indexes append-only and gives list
routes their order.
"""

from __future__ import annotations

import os
import re
import threading
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_RANDOM = 10  # bytes of an id
_FORM = re.compile(r"[a-z]{2,8}_[0-9A-HJKMNP-TV-Z]{26}")


class _Pool:
    """Bytes of the system's random source, fetched many at a time: a call of it for each id gives up the interpreter's
    lock, which costs a busy process more than the bytes. No byte is given out twice, nor to both sides of a fork.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.clear()
        os.register_at_fork(after_in_child=self.clear)

    def clear(self) -> None:
        self._lock = threading.Lock()  # a thread that the fork left behind may hold the old one
        self._bytes, self._at = b"", 0

    def take(self, count: int) -> bytes:
        with self._lock:
            if self._at + count > len(self._bytes):
                self._bytes, self._at = os.urandom(max(self._size, count)), 0
            self._at += count
            return self._bytes[self._at - count : self._at]


_pool = _Pool(4096)


def random_bytes(count: int) -> bytes:
    """Unpredictable bytes for ids that name things. Secrets are made by the module `secrets`."""
    return _pool.take(count)


def new_id(prefix: str) -> str:
    """A new identifier `<prefix>_<26 characters>`."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(_pool.take(_RANDOM), "big")
    pairs = _PAIRS
    return f"{prefix}_" + "".join([pairs[value >> shift & 1023] for shift in range(120, -1, -10)])


def first_id(prefix: str, micros: int) -> str:
    """The identifier before all that are made from a moment on (microseconds since the epoch, truncated to
    milliseconds).
    """
    value = micros // 1000 << 80
    return f"{prefix}_" + "".join(_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10))


def is_id(value: str, prefix: str) -> bool:
    """Whether `value` has the form of an identifier of this kind."""
    return value.startswith(prefix + "_") and _FORM.fullmatch(value) is not None
