"""The file of waivers: what can't be used of it is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from kgents.errors import Unprocessable
from kgents.readiness.waivers import load


def test_without_a_file_nothing_is_waived(tmp_path: Path) -> None:
    assert load(tmp_path / "waivers.toml") == {}


@pytest.mark.parametrize(
    "content", [b"\xff", b"waiver = 1", b"[waiver]\nreason = 'x'", b"[[waiver]]\ncriterion = 'A1'"]
)
def test_what_is_no_waiver_is_refused(tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "waivers.toml").write_bytes(content)
    with pytest.raises(Unprocessable, match="can't be used"):
        load(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unprocessable, match="can't be used: Is a directory"):
        load(tmp_path)
