"""A release is made from a clone, is the same when it is made again, and what is not the same is seen."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import pytest

from kgents.errors import Unprocessable
from release import verify
from tests.release import repository
from tests.support.documents import blocks, typed

DOCUMENT = "docs/operations/release.md"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository.of_this_tree(tmp_path_factory.mktemp("release") / "kgents")


@pytest.fixture(scope="module")
def released(tree: Path) -> Path:
    """The folder of a release, made as its document says."""
    (block,) = blocks(DOCUMENT, "sh", "## Build")
    done = alone(block, tree)
    assert done.returncode == 0, done.stderr
    (folder,) = (tree / "dist").iterdir()
    return folder


@pytest.fixture
def copy(released: Path, tmp_path: Path) -> Path:
    return shutil.copytree(released, tmp_path / "copy")


def alone(block: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What comes of a block that is typed there, by someone whose shell knows nothing of these tests."""
    left = ("VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL")  # a make within a make tells of its folders
    environment = {name: value for name, value in os.environ.items() if name not in left}
    return typed(block, environment, folder, seconds=300)


def plant(archive: Path, name: str) -> None:
    """Have one file more in a .tar.gz."""
    plain = gzip.decompress(archive.read_bytes())
    with tarfile.open(fileobj=(content := io.BytesIO(plain)), mode="a") as tar:
        tar.addfile(tarfile.TarInfo(name))
    archive.write_bytes(gzip.compress(content.getvalue(), mtime=0))


def run(tree: Path, *arguments: str | Path, umask: int = -1) -> subprocess.CompletedProcess[str]:
    """The release program of a tree."""
    command = [sys.executable, "-m", "release", *map(str, arguments)]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=300, umask=umask)


def provenance(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "provenance.json").read_text())
    return document


def names(released: Path, suffix: str) -> list[str]:
    """The files in a release's archive, below its own folder if it has one."""
    (path,) = released.glob(f"*{suffix}")
    if suffix == ".whl":
        return zipfile.ZipFile(path).namelist()
    with tarfile.open(path) as tar:
        return [member.name.partition("/")[2] for member in tar if member.isfile()]


def metadata(released: Path) -> Message:
    (path,) = released.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(wheel.read(name).decode())


def test_it_has_wheel_sdist_bill_sums_and_provenance(released: Path) -> None:
    version = released.name
    assert sorted(path.name for path in released.iterdir()) == [
        "SHA256SUMS",
        f"kgents-{version}-py3-none-any.whl",
        f"kgents-{version}.cdx.json",
        f"kgents-{version}.tar.gz",
        "provenance.json",
    ]


def test_its_sums_are_those_of_the_files(released: Path) -> None:
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=released, capture_output=True)
    assert done.returncode == 0, done.stdout


def test_its_provenance_is_about_these_files_and_this_commit(tree: Path, released: Path) -> None:
    document = provenance(released)
    sums = dict(line.split()[::-1] for line in (released / "SHA256SUMS").read_text().splitlines())
    assert {each["name"]: each["digest"]["sha256"] for each in document["subject"]} == sums
    definition = document["predicate"]["buildDefinition"]
    made_of = {each["name"]: each["digest"] for each in definition["resolvedDependencies"]}
    assert made_of["source"] == {"gitCommit": repository.git(tree, "rev-parse", "HEAD")}
    assert made_of.keys() == {
        "source",
        "uv.lock",
        "scripts/uv.txt",
        "release/build-system.txt",
        "deploy/image/Dockerfile",
    }


def test_the_wheels_metadata_is_complete(released: Path) -> None:
    found = metadata(released)
    assert (found["Name"], found["Version"]) == ("kgents", released.name)
    assert (found["License-Expression"], found["License-File"]) == ("Apache-2.0", "LICENSE")
    assert found["Requires-Python"] == ">=3.11"
    assert found["Description-Content-Type"] == "text/markdown"
    assert found["Summary"]
    assert "Typing :: Typed" in found.get_all("Classifier", [])


def test_its_version_is_the_one_that_kgents_tells(released: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "kgents.cli.main", "--version"], capture_output=True, text=True)
    assert done.stdout == f"kgents {released.name}\n"


def test_the_wheel_has_the_product_and_nothing_else(released: Path) -> None:
    found = {name.split("/")[0] for name in names(released, ".whl")}
    assert found == {"kgents", f"kgents-{released.name}.dist-info"}


def test_the_sdist_has_what_a_build_needs_and_nothing_else(released: Path) -> None:
    found = names(released, ".tar.gz")
    assert {name for name in found if not name.startswith("src/kgents/")} == {
        "LICENSE",
        "PKG-INFO",
        "README.md",
        "pyproject.toml",
        "pyproject.toml.orig",
    }


def test_the_bill_has_the_commits_time_and_every_dependency(released: Path) -> None:
    (path,) = released.glob("*.cdx.json")
    bill = json.loads(path.read_text())
    assert bill["metadata"]["timestamp"] == "2026-01-31T12:00:00Z"
    assert bill["serialNumber"].startswith("urn:uuid:")
    assert {"fastapi", "sqlalchemy", "uvicorn"} <= {each["name"].lower() for each in bill["components"]}


def test_a_release_that_is_there_is_not_built_over(tree: Path, released: Path) -> None:
    done = run(tree, "--without-image")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is there already" in done.stderr
    assert "Traceback" not in done.stderr


def test_built_again_it_is_the_same(tree: Path, released: Path, tmp_path: Path) -> None:
    """In another folder, at another time, by someone with another umask, with something beside the commit's files."""
    repository.git(tmp_path, "clone", "--quiet", str(tree), "again")
    planted = tmp_path / "again" / "src" / "kgents" / "__pycache__" / "planted.pyc"
    planted.parent.mkdir()
    planted.touch()
    done = run(tmp_path / "again", "--without-image", "--out", tmp_path / "out", umask=0o077)
    assert done.returncode == 0, done.stderr
    again = tmp_path / "out" / released.name
    ours = sorted(path.name for path in released.iterdir() if path.name != "provenance.json")
    assert [name for name in ours if (released / name).read_bytes() != (again / name).read_bytes()] == []


def test_one_that_was_not_changed_is_the_same(tree: Path, released: Path) -> None:
    (block,) = blocks(DOCUMENT, "sh", "## Verify")
    done = alone(block, tree)
    assert done.returncode == 0, done.stderr
    files = sorted(path.name for path in released.iterdir() if path.name not in ("SHA256SUMS", "provenance.json"))
    assert done.stdout.splitlines() == [f"same      {name}" for name in [*files, "SHA256SUMS"]]


def test_what_is_not_the_commits_is_seen(tree: Path, copy: Path) -> None:
    """Of a release whose sdist has something more, sums and all, and whose bill has another sum than the provenance."""
    (sdist,), (bill,) = copy.glob("*.tar.gz"), copy.glob("*.cdx.json")
    before = hashlib.sha256(sdist.read_bytes()).hexdigest()
    plant(sdist, "setup.py")
    after = hashlib.sha256(sdist.read_bytes()).hexdigest()
    for name in ("SHA256SUMS", "provenance.json"):
        (copy / name).write_text((copy / name).read_text().replace(before, after))
    bill.write_text("{}")
    done = run(tree, "verify", copy)
    assert done.returncode == 1
    verdicts = {line.split()[1]: line.split()[0] for line in done.stdout.splitlines()}
    assert verdicts == {
        f"kgents-{metadata(copy)['Version']}-py3-none-any.whl": "same",
        sdist.name: "differs",
        bill.name: "changed",
        "SHA256SUMS": "same",
    }
    assert f"{bill.name}, {sdist.name}" in done.stderr


def test_a_build_backend_of_another_hash_builds_nothing(tree: Path, tmp_path: Path) -> None:
    repository.git(tmp_path, "clone", "--quiet", str(tree), "other")
    pins = tmp_path / "other" / "release" / "build-system.txt"
    pins.write_text(re.sub("sha256:[0-9a-f]{8}", "sha256:00000000", pins.read_text()))
    repository.commit(tmp_path / "other")
    done = run(tmp_path / "other", "--without-image")
    assert (done.returncode, done.stdout) == (1, "")
    assert "`uv build` failed" in done.stderr
    assert "hash" in done.stderr.lower()
    assert not (tmp_path / "other" / "dist").exists()


def test_another_commit_can_not_tell(tree: Path, copy: Path) -> None:
    commit = json.loads((copy / "provenance.json").read_text())["predicate"]["buildDefinition"]["externalParameters"]
    text = (copy / "provenance.json").read_text().replace(commit["commit"], "0" * 40)
    (copy / "provenance.json").write_text(text)
    done = run(tree, "verify", copy)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"git checkout {'0' * 40}" in done.stderr


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"predicate": []}'])
def test_what_is_no_provenance_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "provenance.json").write_text(text)
    with pytest.raises(Unprocessable, match="is no provenance"):
        verify.read(tmp_path)
