"""The container image of a release, as an OCI archive that is the same each time."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster import images
from kgents.scan.toolbox import Broken, run
from release.model import Image, Material
from release.source import Source

NAMES = ("base image", "build image")
"""What an image is based on, and what it is built on: in scripts/image's order, which is that of `VARIABLES`."""
SCHEME = "docker://"
VARIABLES = ("BASE_IMAGE", "BUILD_IMAGE")

_ELSE = (
    "BASE_IMAGE and BUILD_IMAGE name other images to build upon; --local-base makes one here, as root, with buildah "
    "and debootstrap; --without-image leaves the image out."
)


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
            raise Broken(f"`scripts/image` failed: {done.last_words}. {_ELSE}", code="image")
        if self.storage:
            run(["buildah", "rmi", name], cwd=tree, **self.storage)
        return Image(name, pack(layout, archive, source.epoch), _bases(Path(f"{layout}.bases").read_text()))


def upon(bases: Mapping[str, str]) -> Builder:
    """Upon these very images: names, in the order of `NAMES`, with the digests (sha256) of their manifests.

    Where those are `local`'s it is that one, and raises Broken as that does.
    """
    if set(bases) == {images.BASE}:
        return local()
    plain = [re.sub(r":[^:/]*$", "", name.partition("@")[0]) for name in bases]  # without tag and digest
    pinned = [f"{name}@sha256:{digest}" for name, digest in zip(plain, bases.values(), strict=True)]
    return Builder(dict(zip(VARIABLES, (pinned * 2)[:2], strict=True)))


def local() -> Builder:
    """Upon a Debian that debootstrap makes here, where the Dockerfile's bases can't be had. Raises Broken."""
    try:
        images.make_base()
    except (SystemExit, OSError, subprocess.SubprocessError) as error:
        raise Broken(f"the base image can't be made here: {error}", code="image") from None
    return Builder(dict.fromkeys(VARIABLES, images.BASE), images.environment())


def is_of_image(name: str) -> bool:
    """Whether a release's file, or other subject, comes of its image."""
    return "-image." in name or ":" in name


def pack(layout: Path, archive: Path, epoch: int) -> str:
    """Write an OCI layout as an archive in which only its files count; answers the digest of the image's manifest."""
    index = layout / "index.json"
    found = json.loads(index.read_text())["manifests"] if index.exists() else []
    if len(found) != 1:
        raise Broken(f"the builder gave {len(found)} OCI images, not one (Docker: 25 or newer)", code="image")
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
