"""The container image of a release, as an OCI archive that is the same each time."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kgents.scan.toolbox import Broken, run
from release.model import Image, Material
from release.source import Source

NAMES = ("base image", "build image")
"""What an image is based on, and what it is built on: in scripts/image's order, which is that of `VARIABLES`."""
SCHEME = "docker://"
VARIABLES = ("BASE_IMAGE", "BUILD_IMAGE")


@dataclass(frozen=True, slots=True)
class Builder:
    """How images are built: `bases` are other images than the Dockerfile's to build upon (`BASE_IMAGE`, `BUILD_IMAGE`),
    and `storage` is the environment in which they are found.
    """

    bases: Mapping[str, str] = field(default_factory=dict)
    storage: Mapping[str, str] = field(default_factory=dict)

    def build(self, tree: Path, layout: Path, archive: Path, source: Source) -> Image:
        """Build the tree's image, every step anew; answers it with its archive. Raises Broken.

        `layout` is a folder to be made, which then holds the image unpacked.
        """
        name = f"kgents:{source.version}"
        done = run(
            ["scripts/image"], cwd=tree, **self.storage, **self.bases, IMAGE=name, LAYOUT=str(layout), NO_CACHE="1"
        )
        if done.status != 0:
            raise Broken(f"`scripts/image` failed: {done.last_words}", code="image")
        if self.storage:
            run(["buildah", "rmi", name], cwd=tree, **self.storage)
        return Image(name, pack(layout, archive, source.epoch), _bases(Path(f"{layout}.bases").read_text()))


def upon(bases: Mapping[str, str]) -> Builder:
    """Upon these very images: names, in the order of `NAMES`, with the digests (sha256) of their manifests.

    Raises Broken, as `local` does, where they were made on this machine.
    """
    if all(name.startswith("localhost/") for name in bases):
        return local()
    pinned = [f"{re.sub(r':[^:/]*$', '', name)}@sha256:{digest}" for name, digest in bases.items()]
    return Builder(dict(zip(VARIABLES, (pinned * 2)[:2], strict=True)))


def local() -> Builder:
    """Upon a Debian that debootstrap makes here, where the Dockerfile's bases can't be had. Raises Broken."""
    from cluster import images

    try:
        images.make_base()
    except (SystemExit, OSError, ValueError) as error:
        raise Broken(f"the base image can't be made here: {error}", code="image") from None
    return Builder(dict.fromkeys(VARIABLES, images.BASE), images.environment())


def is_of_image(name: str) -> bool:
    """Whether a release's file, or other subject, comes of its image."""
    return "-image." in name or ":" in name


def pack(layout: Path, archive: Path, epoch: int) -> str:
    """Write an OCI layout as an archive in which only its files count; answers the digest of the image's manifest."""
    found = json.loads((layout / "index.json").read_text())["manifests"]
    if len(found) != 1:
        raise Broken(f"the builder made {len(found)} images instead of one", code="image")
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(each for each in layout.rglob("*") if each.is_file()):
            info = tarfile.TarInfo(str(path.relative_to(layout)))
            info.size, info.mode, info.mtime = path.stat().st_size, 0o644, epoch
            with path.open("rb") as file:
                tar.addfile(info, file)
    return str(found[0]["digest"]).removeprefix("sha256:")


def _bases(text: str) -> Sequence[Material]:
    lines = [line.split() for line in text.splitlines()]
    if [len(line) for line in lines] != [2] * len(NAMES):
        raise Broken("the builder does not say which images it built upon", code="image")
    return [
        Material(name, digest.removeprefix("sha256:"), uri=f"{SCHEME}{image}")
        for name, (image, digest) in zip(NAMES, lines, strict=True)
    ]
