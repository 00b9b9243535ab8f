"""JSON values out of a fuzzer's bytes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import orjson

_DEPTH = 6
_ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**53,
    2**63 - 1,
    2**63,
    2**64 - 1,
    0.0,
    1.0,
    -0.5,
    1e308,
    5e-324,
    "",
    "0",
    "\0",
    "ü",
    "\U0001f600",
    "a" * 65,
)


def json_of(data: bytes, words: Sequence[Any]) -> Any:
    """The value that `data` is as JSON; or else one that its bytes choose, made of `words` and of odd values. So a
    mutation of bytes becomes one of JSON, which mutated text seldom is.
    """
    if data[:1] in (b"{", b"["):
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            pass
    return _Chooser(data, words).value(0)


class _Chooser:
    def __init__(self, data: bytes, words: Sequence[Any]) -> None:
        self._bytes = iter(data)
        self._words = words
        self._names = [word for word in words if isinstance(word, str)] or [""]

    def value(self, depth: int) -> Any:
        kind = self._byte() % 8
        if depth >= _DEPTH or kind < 2:
            return self._words[self._byte() % len(self._words)]
        if kind == 2:
            return _ODD[self._byte() % len(_ODD)]
        if kind == 3:
            return self._text()
        if kind == 4:
            return [self.value(depth + 1) for _ in range(self._byte() % 6)]
        return {self._name(): self.value(depth + 1) for _ in range(self._byte() % 10)}

    def _name(self) -> str:
        choice = self._byte()
        return self._names[choice % len(self._names)] if choice < 250 else self._text()

    def _text(self) -> str:
        return bytes(islice(self._bytes, self._byte() % 32)).decode("utf-8", "ignore")

    def _byte(self) -> int:
        return next(self._bytes, 0)
