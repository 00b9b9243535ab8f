"""Container images for the nodes. There is no registry: an image is brought to each node's containerd from a file."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster import build as programs
from cluster import processes
from cluster.layout import CACHE, HERE, NODES, RUN, Node
from cluster.nodes import PAUSE

SUITE = "bookworm"
BASE = "localhost/kgents-base:test"
KGENTS = "localhost/kgents:test"
POSTGRES = "localhost/postgres:test"
NATS = "localhost/nats:test"
LOG_COLLECTOR = "localhost/log-collector:test"
_INPUTS = (
    "src",
    "deploy/image",
    "scripts",
    "cluster/images.py",
    "cluster/tools/collector",
    "pyproject.toml",
    "uv.lock",
    "README.md",
    "LICENSE",
)
_PROJECT = HERE.parent
_STORAGE = CACHE / "storage"


def build() -> dict[str, Path]:
    """Build the images that the tests deploy, where what they are made of has changed; answers an archive of each."""
    folder = CACHE / "archives" / _key()
    with programs.one_at_a_time(CACHE / "archives"):
        return _build(folder)


def _build(folder: Path) -> dict[str, Path]:
    images = (KGENTS, POSTGRES, NATS, LOG_COLLECTOR)
    found = {image: folder / f"{image.rpartition('/')[2].replace(':', '-')}.tar" for image in images}
    if folder.exists():
        return found
    make_base()
    _run("scripts/image", BUILDER="buildah", IMAGE=KGENTS, BASE_IMAGE=BASE, BUILD_IMAGE=BASE)
    _run(
        *("buildah", "build", "--isolation=chroot", "--layers", "--file=deploy/image/test/postgres.Dockerfile"),
        *(f"--build-arg=BASE_IMAGE={BASE}", f"--tag={POSTGRES}", "."),
    )
    for old in folder.parent.glob("*"):
        shutil.rmtree(old)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        unfinished = Path(name) / "archives"
        unfinished.mkdir()
        for image in (KGENTS, POSTGRES):
            _run("buildah", "push", "--quiet", image, f"docker-archive:{unfinished / found[image].name}:{image}")
        server = Path(sysconfig.get_path("scripts")) / "nats-server"
        collector = programs.build("collector") / "collector"
        for image, program in ((NATS, server), (LOG_COLLECTOR, collector)):
            (unfinished / found[image].name).write_bytes(archive(image, program.name, program.read_bytes()))
        folder.parent.mkdir(exist_ok=True)
        unfinished.rename(folder)
    return found


def again() -> Path:
    """Build the image of kgents once more, from the beginning; answers an archive of it."""
    make_base()
    name = f"{KGENTS}-again"
    _run("scripts/image", BUILDER="buildah", IMAGE=name, BASE_IMAGE=BASE, BUILD_IMAGE=BASE, NO_CACHE="1")
    target = CACHE / "again.tar"
    target.unlink(missing_ok=True)
    _run("buildah", "push", "--quiet", name, f"docker-archive:{target}:{name}")
    _run("buildah", "rmi", name)
    return target


def _key() -> str:
    """What the images are made of, and when that was committed, which scripts/image puts into them."""
    digest = hashlib.sha256()
    digest.update(_git("log", "-1", "--format=%ct"))
    kept = _git("ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in sorted(kept.decode().split("\0")):
        path = _PROJECT / name
        if path.is_file():
            digest.update(f"{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _git(*arguments: str) -> bytes:
    """What git says of the inputs."""
    return subprocess.run(["git", *arguments, "--", *_INPUTS], cwd=_PROJECT, capture_output=True, check=True).stdout


def make_base() -> None:
    """Have `BASE` in the storage of `environment`: Debian with Python and nothing else. It is made once, and kept."""
    if subprocess.run(["buildah", "inspect", BASE], env=environment(), capture_output=True).returncode == 0:
        return
    sys.stderr.write("building the base image\n")
    with tempfile.TemporaryDirectory(prefix="kgents-base-") as folder:
        command = ["debootstrap", "--variant=minbase", "--include=ca-certificates,python3", SUITE, folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=900)
        for name in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(Path(folder, name), ignore_errors=True)
            Path(folder, name).mkdir()
        container = _run("buildah", "from", "scratch").strip()
        _run("buildah", "add", "--quiet", container, folder, "/")
        _run("buildah", "commit", "--quiet", "--rm", container, BASE)


def _run(*command: str, **more: str) -> str:
    done = subprocess.run(
        command, cwd=_PROJECT, env=environment() | more, stdout=subprocess.PIPE, text=True, timeout=1800
    )
    if done.returncode:
        raise SystemExit(f"`{' '.join(command)}` failed.")
    return done.stdout


def environment() -> dict[str, str]:
    """One with image storage of our own, so that nobody else's images are met."""
    _STORAGE.mkdir(parents=True, exist_ok=True)
    configuration = _STORAGE / "storage.conf"
    configuration.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{_STORAGE}/graph"\nrunroot = "{_STORAGE}/run"\n'
    )
    return {**os.environ, "CONTAINERS_STORAGE_CONF": str(configuration)}


def load_pause(programs: Path) -> None:
    """Bring the nodes the image that holds a pod's namespaces."""
    path = RUN / "pause.tar"
    path.write_bytes(archive(PAUSE, "pause", (programs / "pause").read_bytes()))
    load(path)


def load(path: Path) -> list[str]:
    """Bring an archive of images (of `docker save`, or OCI's) to every node; answers their names by digest. What goes
    to the disk is there by then, so that nobody's fsync waits for it later.
    """
    names = _names(path)

    def bring(node: Node) -> list[str]:
        processes.run(
            ["ctr", f"--address={node.socket}", "--namespace=k8s.io", "images", "import", "--all-platforms", path],
            seconds=300,
        )
        return [_by_digest(node, name) for name in names]

    with ThreadPoolExecutor(len(NODES)) as pool:
        found = list(pool.map(bring, NODES))
    os.sync()
    return found[0]


def _names(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest, f"{path} is no archive of `docker save`"
        return [name for image in json.load(manifest) for name in image["RepoTags"]]


def _by_digest(node: Node, name: str) -> str:
    """The image's name by digest, made known to the node: what was not pulled has none."""
    images = ["ctr", f"--address={node.socket}", "--namespace=k8s.io", "images"]
    digest = processes.run([*images, "list", f"name=={name}"]).splitlines()[1].split()[2]
    full = f"{name.rpartition(':')[0]}@{digest}"
    processes.run([*images, "tag", "--force", name, full])
    return full


def archive(name: str, program: str, content: bytes) -> bytes:
    """An archive of an image that is one static program, run as nobody."""
    layer = _tar({program: content}, mode=0o755)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{program}"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    return _tar({"layer.tar": layer, "config.json": config, "manifest.json": json.dumps(manifest).encode()})


def _tar(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
