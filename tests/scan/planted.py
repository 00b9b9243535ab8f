"""A tree, an environment and an image in which there is something for each scanner to find."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

from kgents.scan.osv import LEAST

ADVISORIES = Path(__file__).parent / "advisories"
# In parts, so that the secrets are only in what is planted.
AWS_KEY = "AKIA" + "IOSFODNN7ZZZZZZQ"
KGENTS_KEY = "kg_" + "1m85er8a6qw27631_" + "op6v4ykkvqft6nS22NnvtaCAmCiiDeO1oYeYMFJHjzi4bNYpR"
FILES = {
    "pyproject.toml": """[project]
name = "planted"
version = "1"
requires-python = ">=3.11"
dependencies = ["jinja2"]
""",
    "uv.lock": f"""version = 1
requires-python = ">=3.11"

[[package]]
name = "planted"
version = "1"
source = {{ virtual = "." }}
dependencies = [{{ name = "jinja2" }}]

[package.metadata]
requires-dist = [{{ name = "jinja2" }}]

[[package]]
name = "jinja2"
version = "2.10"
source = {{ registry = "https://registry.invalid/simple" }}
wheels = [{{ url = "https://registry.invalid/Jinja2-2.10-py2.py3-none-any.whl", hash = "sha256:{"74" * 32}" }}]
""",
    "deploy/overlays/planted/kustomization.yaml": "resources: [pod.yaml]\n",
    "deploy/overlays/planted/pod.yaml": """apiVersion: v1
kind: Pod
metadata:
  name: planted
  namespace: planted
  annotations:
    checkov.io/skip1: CKV_K8S_16=it says that it is fine
spec:
  containers:
    - name: planted
      image: docker.io/library/debian:latest
      securityContext:
        privileged: true
""",
    "deploy/image/Dockerfile": """FROM docker.io/library/debian:12
# hadolint ignore=DL3004
#trivy:ignore:AVD-DS-0010
RUN sudo true
""",
    "settings.ini": f"aws_access_key_id = {AWS_KEY}\n",
    "tests/test_keys.py": f'KEY = "{KGENTS_KEY}"\n',
}


def write_tree(folder: Path) -> Path:
    """The tree."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def write_environment(folder: Path) -> Path:
    """An environment with a package under the GPL."""
    package = folder / "lib" / "python3.11" / "site-packages" / "planted-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: planted\nVersion: 1\nLicense-Expression: GPL-3.0-only\n"
    )
    return folder


def write_database(path: Path) -> Path:
    """The excerpt of the advisories as OSV publishes them all, and as many more as make it plausible."""
    package = {"ecosystem": "PyPI", "name": "zzz"}
    other = {"id": "Z-1", "modified": "2020-01-01T00:00:00Z", "affected": [{"package": package, "versions": ["1"]}]}
    with zipfile.ZipFile(path, "w") as archive:
        for each in sorted(ADVISORIES.glob("*.json")):
            archive.write(each, each.name)
        for number in range(LEAST):
            archive.writestr(f"Z-{number}.json", json.dumps(other))
    return path


def write_docker_archive(path: Path) -> Path:
    """An image as `docker save` writes it."""
    layers = _layers()
    manifest = [
        {"Config": "config.json", "RepoTags": ["planted:1"], "Layers": [f"{n}.tar" for n in range(len(layers))]}
    ]
    files = {f"{number}.tar": layer for number, layer in enumerate(layers)}
    files |= {"config.json": _configuration(layers), "manifest.json": json.dumps(manifest).encode()}
    path.write_bytes(_tar(files))
    return path


def write_oci_layout(folder: Path) -> Path:
    """The same image as an OCI layout."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(kind: str, data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    layers = _layers()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", _configuration(layers)),
        "layers": [blob("layer.v1.tar", layer) for layer in layers],
    }
    index = {"schemaVersion": 2, "manifests": [blob("manifest.v1+json", json.dumps(manifest).encode())]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def _layers() -> list[bytes]:
    """A layer of Debian with a key and an old jinja2, and one that removes the key again."""
    debian = {
        "etc/debian_version": b"12.8\n",
        "var/lib/dpkg/status": b"Package: openssl\nStatus: install ok installed\nVersion: 3.0.15-1\n"
        b"Architecture: amd64\n\n",
        "opt/lib/python3.11/site-packages/jinja2-2.10.dist-info/METADATA": b"Metadata-Version: 2.1\nName: jinja2\n"
        b"Version: 2.10\n\n",
        "app/settings.ini": FILES["settings.ini"].encode(),
    }
    return [_tar(debian), _tar({"app/.wh.settings.ini": b""})]


def _configuration(layers: list[bytes]) -> bytes:
    identifiers = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": identifiers},
        "history": [{"created_by": "planted"} for _ in layers],
    }
    return json.dumps(document).encode()


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
