"""What a build makes, and what it was made of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Material:
    """Something that went into a build: `digest` is of `algorithm` (sha256, gitCommit), in hexadecimal."""

    name: str
    digest: str
    algorithm: str = "sha256"
    uri: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """A container image: its name, the digest of its manifest (sha256, hexadecimal), and what it is built upon."""

    name: str
    digest: str
    bases: Sequence[Material]


@dataclass(frozen=True, slots=True)
class Built:
    """The sha256 of each file of a release, by its name; its image where that was built; and what they are made of
    besides the commit.
    """

    sums: Mapping[str, str]
    image: Image | None
    materials: Sequence[Material]

    @property
    def subjects(self) -> Mapping[str, str]:
        """The sums, and the image's digest by its name."""
        return {**self.sums, **({self.image.name: self.image.digest} if self.image else {})}


def sha256(path: Path) -> str:
    """The sum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listed(sums: Mapping[str, str]) -> str:
    """Sums as `sha256sum --check` reads them."""
    return "".join(f"{value}  {name}\n" for name, value in sorted(sums.items()))
