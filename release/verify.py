"""Whether a release is what its commit gives: built again, and compared by sum."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from kgents.errors import NotFound, Unprocessable
from release import image, recipe
from release.model import listed, sha256
from release.provenance import FILE, SUMS, surroundings
from release.source import Source, unfit


class Verdict(StrEnum):
    """What came of a comparison."""

    SAME = "same"
    DIFFERS = "differs"  # from what the commit gives
    CHANGED = "changed"  # it is not the file that the provenance names
    LEFT_OUT = "left out"  # it was not built again


@dataclass(frozen=True, slots=True)
class Claim:
    """What a provenance says: the commit, where it was built, each subject's sha256 by its name, and the image's bases,
    if it has one: their names, and the digests of their manifests.
    """

    commit: str
    surroundings: Mapping[str, str]
    subjects: Mapping[str, str]
    bases: Mapping[str, str]

    @property
    def files(self) -> Mapping[str, str]:
        """The subjects that are files."""
        return {name: value for name, value in self.subjects.items() if ":" not in name}


def read(folder: Path) -> Claim:
    """The claim of a release. Raises NotFound where there is none, and Unprocessable where it makes no sense."""
    path = folder / FILE
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        definition = document["predicate"]["buildDefinition"]
        bases = [each for each in definition["resolvedDependencies"] if each["name"] in image.NAMES]
        return Claim(
            commit=str(definition["externalParameters"]["commit"]),
            surroundings={name: str(definition["internalParameters"][name]) for name in surroundings()},
            subjects={str(each["name"]): str(each["digest"]["sha256"]) for each in document["subject"]},
            bases={str(each["uri"]).removeprefix(image.SCHEME): str(each["digest"]["sha256"]) for each in bases},
        )
    except FileNotFoundError:
        raise NotFound(f"There is no {path}. Name the folder that `make release` wrote.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unprocessable(f"{path} is no provenance of `make release`: {type(error).__name__} {error}") from None


def refusals(tree: Path, source: Source, claim: Claim) -> list[str]:
    """Why this tree can't tell, and what to do; empty where it can."""
    if claim.commit != source.commit:
        other = f"The release is of {claim.commit[:12]}, and {source.commit[:12]} is checked out"
        return [f"{other}, which may build in another way. Check out the first: git checkout {claim.commit}"]
    return unfit(tree)


def compare(
    folder: Path, tree: Path, source: Source, claim: Claim, images: image.Builder | None, say: Callable[[str], None]
) -> dict[str, Verdict]:
    """Build the release again, without `images` all but its image, and compare; answers verdicts by name.

    Raises Broken where it can't be built.
    """
    with tempfile.TemporaryDirectory(prefix="kgents-again-") as again:
        built = recipe.build(tree, source, Path(again), images, say)
    if claim.surroundings != surroundings():
        say(f"it was built elsewhere, so that the package's bill may differ: {', '.join(claim.surroundings.values())}")
    for base in built.image.bases if built.image else ():
        if base.digest not in claim.bases.values():
            say(f"the {base.name} is not the one that the release was built upon, but sha256:{base.digest[:12]}")
    present = {name: _sum(folder / name) for name in claim.files.keys() | built.sums.keys()}
    verdicts = judged(claim, present, built.subjects, with_image=images is not None)
    sums = folder / SUMS
    is_listed = sums.is_file() and sums.read_text() == listed(claim.files)
    return {**verdicts, SUMS: Verdict.SAME if is_listed else Verdict.CHANGED}


def judged(
    claim: Claim, present: Mapping[str, str | None], again: Mapping[str, str], *, with_image: bool
) -> dict[str, Verdict]:
    """The verdict of each subject of a release or of the second build (`again`), by name, of their sums.

    `present` are the sums of the files that are there, None for one that is not.
    """
    found = {}
    for name in sorted(claim.subjects.keys() | again.keys()):
        claimed = claim.subjects.get(name)
        if name in present and present[name] != claimed:
            found[name] = Verdict.CHANGED
        elif image.is_of_image(name) and claim.bases and not with_image:
            found[name] = Verdict.LEFT_OUT
        else:
            found[name] = Verdict.SAME if again.get(name) == claimed else Verdict.DIFFERS
    return found


def _sum(path: Path) -> str | None:
    return sha256(path) if path.is_file() else None
