"""The digests of the image that is scanned, by which `kgents ready` tells that it is the one that runs."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from kgents.scan.subject import Subject
from kgents.scan.toolbox import Toolbox

ONE, MANY = "sha256:" + 64 * "1", "sha256:" + 64 * "2"
INDEX = "application/vnd.oci.image.index.v1+json"


def layout(folder: Path) -> Path:
    """An image for one platform, in an index of its own."""
    written: dict[str, Any] = {
        "index.json": {"manifests": [{"digest": MANY, "mediaType": INDEX}]},
        f"blobs/{MANY.replace(':', '/')}": {"manifests": [{"digest": ONE, "mediaType": "application/vnd.oci.image"}]},
    }
    for name, content in written.items():
        path = folder / "layout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return folder / "layout"


def digests(image: Path | None) -> list[str]:
    return Subject(Path(), Path(), Toolbox(Path()), 0, image=image).image_digests()


@pytest.mark.parametrize("prefix", ["", "./"])
def test_an_image_has_the_digests_of_its_index_and_its_manifests(tmp_path: Path, prefix: str) -> None:
    folder = layout(tmp_path)
    with tarfile.open(tmp_path / "image.tar", "w") as archive:
        for path in folder.rglob("*"):
            archive.add(path, f"{prefix}{path.relative_to(folder)}", recursive=False)
    assert digests(folder) == digests(tmp_path / "image.tar") == [ONE, MANY]


def test_what_is_no_layout_has_none(tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(b"no archive")
    assert digests(None) == digests(tmp_path) == digests(tmp_path / "image.tar") == []
