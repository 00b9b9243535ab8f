"""The file of waivers: what can't be used of it is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from kgents.clock import from_rfc3339
from kgents.errors import Unprocessable
from kgents.readiness.waivers import load

NOW = from_rfc3339("2026-11-26T23:59:59Z")
WAIVER = '[[waiver]]\ncriterion = "A5"\nreason = "r"\nowner = "o"\n'


def test_without_a_file_nothing_is_waived(tmp_path: Path) -> None:
    assert load(tmp_path / "waivers.toml", NOW) == {}


@pytest.mark.parametrize(
    "content", [b"\xff", b"waiver = 1", b"[waiver]\nreason = 'x'", b"[[waiver]]\ncriterion = 'A1'"]
)
def test_what_is_no_waiver_is_refused(tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "waivers.toml").write_bytes(content)
    with pytest.raises(Unprocessable, match="can't be used"):
        load(path, NOW)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unprocessable, match="can't be used: Is a directory"):
        load(tmp_path, NOW)


def test_one_may_hold_for_400_days_and_no_longer(tmp_path: Path) -> None:
    (path := tmp_path / "waivers.toml").write_text(f"{WAIVER}until = 2027-12-31")
    assert load(path, NOW)["A5"].owner == "o"
    for until in ("2028-01-01", "9999-12-31"):
        path.write_text(f"{WAIVER}until = {until}")
        with pytest.raises(Unprocessable, match=f"A5 is waived until {until}, for more than 400 days"):
            load(path, NOW)
