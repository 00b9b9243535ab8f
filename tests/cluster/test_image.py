"""The image: small, without what only an installer needs, of its own user; and the same when it is built again."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster import __main__ as control
from cluster import images
from tests.faults.systems import FULL
from tests.support.results import record

MOST = 200_000_000  # bytes beyond the base, unpacked


@pytest.fixture(scope="module")
def archive() -> Path:
    if reason := control.lacking():
        pytest.skip(reason)
    return images.build()[images.KGENTS]


@contextmanager
def opened(archive: Path) -> Iterator[tuple[dict[str, Any], list[list[tarfile.TarInfo]]]]:
    """An image's configuration, and what is in each of its layers."""
    with tarfile.open(archive) as whole:

        def read(name: str) -> Any:
            found = whole.extractfile(name)
            assert found is not None
            return found

        manifest = json.load(read("manifest.json"))[0]
        layers = []
        for name in manifest["Layers"]:
            with tarfile.open(fileobj=read(name)) as layer:
                layers.append(layer.getmembers())
        yield json.load(read(manifest["Config"])), layers


def test_it_is_small(archive: Path) -> None:
    with opened(archive) as (_, (_base, *ours)):
        size = sum(member.size for layer in ours for member in layer)
    record("A small image", "tests/cluster/test_image.py", f"{size / 1e6:.0f} MB beyond the base, unpacked")
    assert size < MOST


def test_it_has_no_installer_and_no_compiler(archive: Path) -> None:
    with opened(archive) as (_, (_base, *ours)):
        names = {Path(member.name).name for layer in ours for member in layer}
        programs = {member.name for layer in ours for member in layer if "/bin/" in member.name}
    assert not names & {"pip", "uv", "gcc", "cc", "apt", "apt-get", "__editable__", "nats-server"}
    assert {Path(name).name for name in programs} <= {"kgents", "python", "python3", "python3.11"}


def test_it_runs_as_a_user_with_a_number_and_says_what_it_is(archive: Path) -> None:
    with opened(archive) as (found, _):
        configuration = found["config"]
    assert configuration["User"] == "65532:65532"
    labels = configuration["Labels"]
    assert labels["org.opencontainers.image.title"] == "kgents"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert len(labels["org.opencontainers.image.revision"]) == 40


def digest(archive: Path) -> str:
    """The digest of an image's configuration, which has its layers, its labels and its history in it."""
    with tarfile.open(archive) as whole:
        found = whole.extractfile("manifest.json")
        assert found is not None
        configuration = whole.extractfile(json.load(found)[0]["Config"])
        assert configuration is not None
        return hashlib.sha256(configuration.read()).hexdigest()


if FULL:

    def test_the_same_inputs_give_the_same_image(archive: Path) -> None:
        """It takes two minutes more, so that only the full counts have it.

        Two builds from the beginning have one digest. One that keeps steps of an earlier build has the same layers; its
        configuration may tell of the earlier one's commit and moments.
        """
        with opened(archive) as (kept, _):
            layers = kept["rootfs"]["diff_ids"]
        first = digest(images.again())
        again = images.again()
        with opened(again) as (second, _):
            assert second["rootfs"]["diff_ids"] == layers
        assert digest(again) == first
        record("A reproducible image", "KGENTS_FULL=1 pytest tests/cluster/test_image.py", "built twice: one digest")
