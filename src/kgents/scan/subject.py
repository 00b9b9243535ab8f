"""What is scanned: a tree, and with it an image; and what several scanners need of them, made once."""

from __future__ import annotations

import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kgents.scan.toolbox import Broken, Toolbox, git

_BESIDE = (".git", ".venv", "node_modules", "__pycache__")


@dataclass(slots=True)
class Subject:
    """A tree, and an image as an OCI layout's folder or a docker archive. `work` is an empty folder, for copies.

    `environment` is a venv whose packages are looked up instead of those of uv.lock. Methods raise Broken.
    """

    tree: Path
    work: Path
    toolbox: Toolbox
    now: int
    image: Path | None = None
    osv: str = ""
    environment: Path | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def files(self) -> list[Path]:
        """The tree's files, relative to it: those that git keeps or would keep; without git, all of them."""
        listed = git(self.tree, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".")
        if listed is not None:
            names = [Path(name) for name in listed.split("\0") if name]
        else:
            names = [
                path.relative_to(self.tree)
                for path in sorted(self.tree.rglob("*"))
                if not set(_BESIDE) & set(path.relative_to(self.tree).parts)
            ]
        return [name for name in names if (self.tree / name).is_file() and not (self.tree / name).is_symlink()]

    def copy(self) -> Path:
        """A folder with the tree's files, and nothing else that lies about in it."""
        with self.lock:
            folder = self.work / "tree"
            if not folder.exists():
                for name in self.files():
                    target = folder / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(self.tree / name, target)
            if not folder.exists():
                raise Broken(f"there are no files in {self.tree}", code="nothing")
            return folder

    def image_digests(self) -> list[str]:
        """The digests by which a registry would name the image: those of its manifests, and of its index's."""
        if self.image is None:
            return []
        try:
            return sorted(_digests(self.image))
        except (OSError, ValueError, KeyError, TypeError, tarfile.TarError):
            return []  # an archive of a form that has none

    def dockerfiles(self) -> list[Path]:
        """The tree's Dockerfiles, relative to it. Broken where there is none."""
        found = [
            name
            for name in self.files()
            if name.name in ("Dockerfile", "Containerfile")
            or name.suffix == ".Dockerfile"
            or name.name.startswith("Dockerfile.")
        ]
        if not found:
            raise Broken(f"there is no Dockerfile in {self.tree}", code="nothing")
        return found

    def runtime(self) -> Path:
        """An environment with what kgents itself needs at run time, by uv.lock, with all extras."""
        with self.lock:
            folder = self.work / "runtime"
            if not folder.exists():
                if not (self.tree / "uv.lock").is_file():
                    raise Broken(f"there is no uv.lock in {self.tree}", code="no-lock")
                self.toolbox.uv(
                    *("sync", "--quiet", "--frozen", "--no-dev", "--all-extras", "--no-install-project"),
                    cwd=self.tree,
                    UV_PROJECT_ENVIRONMENT=str(folder),
                )
            return folder


def _digests(image: Path) -> Iterator[str]:
    """Of an OCI layout, as a folder or an archive (https://github.com/opencontainers/image-spec)."""
    waiting = ["index.json"]
    while waiting:
        for each in json.loads(_part(image, waiting.pop())).get("manifests", ()):
            yield each["digest"]
            if str(each.get("mediaType")).endswith((".index.v1+json", ".manifest.list.v2+json")):
                waiting.append(f"blobs/{each['digest'].replace(':', '/')}")


def _part(image: Path, name: str) -> bytes:
    if image.is_dir():
        return (image / name).read_bytes()
    with tarfile.open(image) as archive:
        for member in archive:
            if member.isfile() and member.name.removeprefix("./") == name:
                file = archive.extractfile(member)
                return file.read() if file else b""
    raise KeyError(name)
