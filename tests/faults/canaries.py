"""Canaries: secrets and texts that stand nowhere else, and finding them in whatever form they were written down."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

Kind = Literal["secret", "tool credential", "tool header", "text"]


@dataclass(frozen=True, slots=True)
class Canary:
    """Something to look for. `name` says what it is; the word itself is never shown."""

    name: str
    kind: Kind
    word: str = field(repr=False)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A canary that was found: where, which one, and in which form."""

    place: str
    canary: str
    form: str

    @property
    def kind_of_place(self) -> str:
        """The place without what is particular to it."""
        return self.place.partition(":")[0]


class Canaries:
    """All the canaries of a test."""

    def __init__(self) -> None:
        self.all: list[Canary] = []

    def text(self, name: str) -> str:
        """A new text, with what needs escaping in JSON, in URLs and in HTML."""
        return self._add(name, "text", f'cn{uuid4().hex} "{name}" <ä>&\\+/{uuid4().hex}@example.org')

    def secret(self, name: str, word: str = "", kind: Kind = "secret") -> str:
        """A new secret, or the given one."""
        return self._add(name, kind, word or f"sk-{uuid4().hex}+/={uuid4().hex}")

    def key(self, name: str, token: str) -> str:
        """An API key: its secret part is the canary, since ids are no secret."""
        self._add(name, "secret", token.rpartition("_")[2])
        return token

    def _add(self, name: str, kind: Kind, word: str) -> str:
        self.all.append(Canary(name, kind, word))
        return word

    def find(self, place: str, content: bytes, kinds: Iterable[Kind], *, home_of: Iterable[str] = ()) -> list[Finding]:
        """The canaries of these kinds in a place, but for those whose home it is (by name)."""
        wanted, homes = set(kinds), set(home_of)
        return [
            Finding(place, canary.name, form)
            for canary in self.all
            if canary.kind in wanted and canary.name not in homes
            for form, pattern in forms(canary.word).items()
            if pattern in content
        ]


def forms(word: str) -> dict[str, bytes]:
    """A word as it may stand in a place. A word's first part without a special sign is looked for as well: it is what
    every escaping leaves as it is, and what is left of one that was cut off.
    """
    raw = word.encode()
    match = re.match(r"[A-Za-z0-9_-]{12,}", word)
    core = match[0].encode() if match else raw
    found = {
        "plain": core,
        "URL-encoded": urllib.parse.quote(word, safe="").encode(),
        "form-encoded": urllib.parse.quote_plus(word).encode(),
        "JSON": json.dumps(word)[1:-1].encode(),
        "JSON in JSON": json.dumps(json.dumps(word)[1:-1])[1:-1].encode(),
        "hexadecimal": core.hex().encode(),
    }
    for shift in range(3):
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            # Of a word somewhere in what was encoded: the signs that depend on it alone.
            encoded = encode(b"\0" * shift + core).rstrip(b"=")
            found[f"{name}, shifted by {shift}"] = encoded[(shift * 8 + 5) // 6 : -1]
    first: dict[bytes, str] = {}
    for form, pattern in found.items():
        first.setdefault(pattern, form)
    return {form: pattern for pattern, form in first.items()}
