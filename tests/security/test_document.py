"""docs/saas/security.md names tests that there are, and all ten."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = "tests/security"
NAMED = set(re.findall(r"`((?:tests/)?[\w/]+)(?=\.py`|`)", (ROOT / "docs" / "saas" / "security.md").read_text()))


def exists(name: str) -> bool:
    path = ROOT / (name if "/" in name else f"{HERE}/{name}")
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_every_test_that_is_named_is_there() -> None:
    named = [name for name in NAMED if name.startswith(("tests/", "test_"))]
    assert len(named) > 20
    assert [name for name in named if not exists(name)] == []


def test_each_of_the_ten_has_a_test_that_is_named() -> None:
    there = {path.stem for path in Path(__file__).parent.glob("test_api*.py")}
    assert {name[:10] for name in there} == {f"test_api{number:02}" for number in range(1, 11)}
    assert there <= {name.rpartition("/")[2] for name in NAMED}
