"""How a release is built from a clone of its commit. Nothing else decides what comes of it."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from kgents.scan.toolbox import Broken, run
from release import bills, image
from release.model import Built, Material, sha256
from release.source import Source, clone

PINS = "release/build-system.txt"
_WAY = re.compile(r"UV_(.*INDEX.*|CACHE_DIR|HTTP_.*|NATIVE_TLS|SYSTEM_CERTS|OFFLINE|PYTHON_DOWNLOADS)")
"""The variables of uv that say how packages are got, and not which."""
_INPUTS = ("uv.lock", "scripts/uv.txt", PINS, "deploy/image/Dockerfile")


def settle() -> None:
    """Have this process and what it starts depend on nothing that a developer has set for themselves."""
    for name in list(os.environ):
        is_uvs = name.startswith("UV_") and not _WAY.fullmatch(name)
        if is_uvs or (name.startswith(("GIT_", "PYTHON", "KGENTS_")) and name != "KGENTS_CACHE"):
            del os.environ[name]
    os.environ |= {"LC_ALL": "C.UTF-8", "TZ": "UTC"}
    os.environ["UV_PYTHON"] = sys.executable  # of which the package's bill is
    os.umask(0o022)


def build(
    tree: Path, source: Source, out: Path, images: image.Builder | None, say: Callable[[str], None] = lambda _text: None
) -> Built:
    """Build the files of a release into an empty folder; without `images`, no image. `say` is told of each step.

    Raises Broken where a step fails.
    """
    with tempfile.TemporaryDirectory(prefix="kgents-release-") as name:
        work = Path(name)
        say(f"cloning {source.commit[:12]}")
        clone(tree, source, work / "kgents")
        say("building wheel and sdist")
        files = _distributions(work / "kgents", work / "dist", out, source)
        made = None
        if images is not None:
            say("building the image (some minutes)")
            archive = out / f"kgents-{source.version}-image.tar"
            made = images.build(work / "kgents", work / "layout", archive, source)
            files.append(archive)
        say("writing bills of materials")
        files += bills.write(work / "kgents", work / "layout" if made else None, out, source)
        materials = [Material(each, sha256(work / "kgents" / each)) for each in _INPUTS]
    sums = {each.name: sha256(each) for each in sorted(files)}
    return Built(sums, made, materials)


def _distributions(tree: Path, folder: Path, out: Path, source: Source) -> list[Path]:
    """The sdist, and the wheel that is made from it, by the build backend that is pinned by hash."""
    done = run(
        [
            *("scripts/uv", "build", "--quiet", "--force-pep517", "--require-hashes"),
            *("--build-constraints", PINS, "--out-dir", str(folder), "."),
        ],
        cwd=tree,
        SOURCE_DATE_EPOCH=str(source.epoch),
    )
    if done.status != 0:
        raise Broken(f"`uv build` failed:\n{done.stderr.strip()}", code="build")
    found = sorted([*folder.glob("*.whl"), *folder.glob("*.tar.gz")])
    return [each.rename(out / each.name) for each in found]
