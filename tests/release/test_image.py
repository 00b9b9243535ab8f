"""An image's archive and its bill hold nothing of the moment, and it is built again upon the same images."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from kgents.scan.toolbox import Broken
from release import image
from release.bills import settled
from release.source import LOCAL, Source

DIGEST = "ab" * 32
SOURCE = Source(LOCAL, "refs/heads/main", "01" * 20, 1_769_860_800, "1.2.0")


def layout(folder: Path, names: list[str], mtime: int) -> Path:
    """An OCI layout whose files are written in this order, at this time."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        manifests = [{"digest": f"sha256:{DIGEST}"}]
        path.write_text(json.dumps({"manifests": manifests}) if name == "index.json" else name)
        os.utime(path, (mtime, mtime))
    return folder


def bill(word: str = "python3") -> dict[str, Any]:
    """An image's bill as a scanner writes it: new numbers, and another order, each time."""
    root, system, package = (str(uuid.uuid4()) for _ in range(3))
    components = [
        {"bom-ref": system, "type": "operating-system", "name": "debian"},
        {"bom-ref": package, "type": "library", "name": word},
    ]
    return {
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "metadata": {
            "timestamp": f"2026-01-31T12:00:00.{uuid.uuid4().int % 1000}Z",
            "component": {"bom-ref": root, "type": "container", "name": f"/a/{root}"},
        },
        "components": sorted(components, key=lambda each: each["bom-ref"]),
        "dependencies": sorted(
            [{"ref": root, "dependsOn": sorted([system, package])}, {"ref": system, "dependsOn": []}],
            key=lambda each: str(each["ref"]),
        ),
    }


def test_archives_of_the_same_image_are_the_same(tmp_path: Path) -> None:
    names = ["index.json", "oci-layout", "blobs/sha256/1", "blobs/sha256/2"]
    first = layout(tmp_path / "first", names, 1)
    second = layout(tmp_path / "second", names[::-1], 2)
    digests = {image.pack(each, tmp_path / f"{each.name}.tar", 5) for each in (first, second)}
    assert digests == {DIGEST}
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()


def test_what_is_no_layout_makes_no_archive(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="0 OCI images"):
        image.pack(tmp_path, tmp_path / "image.tar", 5)


def test_bills_of_the_same_image_are_the_same() -> None:
    found = [settled(bill(), SOURCE, "image") for _ in range(5)]
    assert all(each == found[0] for each in found)


def test_bills_of_other_images_differ() -> None:
    assert settled(bill(), SOURCE, "image") != settled(bill("perl"), SOURCE, "image")


def test_a_bills_references_still_lead_to_its_components() -> None:
    found = settled(bill(), SOURCE, "image")
    named = {found["metadata"]["component"]["bom-ref"], *(each["bom-ref"] for each in found["components"])}
    assert {each["ref"] for each in found["dependencies"]} <= named
    assert {name for each in found["dependencies"] for name in each["dependsOn"]} <= named


def test_bills_of_two_commits_have_numbers_of_their_own() -> None:
    other = Source(LOCAL, "refs/heads/main", "02" * 20, SOURCE.epoch, SOURCE.version)
    one = bill()
    numbers = {settled(one, source, "image")["serialNumber"] for source in (SOURCE, other)}
    assert len(numbers) == 2


@pytest.mark.parametrize(
    "name",
    [
        "registry.example.com:5000/python:3.11",
        "registry.example.com:5000/python",
        f"registry.example.com:5000/python@sha256:{DIGEST}",
    ],
)
def test_it_is_built_again_upon_the_same_image(name: str) -> None:
    pinned = f"registry.example.com:5000/python@sha256:{DIGEST}"
    assert image.upon({name: DIGEST}).bases == {"BASE_IMAGE": pinned, "BUILD_IMAGE": pinned}
