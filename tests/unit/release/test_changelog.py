"""A changelog says of a version when it was released, and what is in it; nothing waits under Unreleased then."""

from __future__ import annotations

from pathlib import Path

import pytest

from release.changelog import lacking

ROOT = Path(__file__).resolve().parents[3]
RELEASED = """# Changelog

## [Unreleased]

## [1.2.0] - 2026-11-27

### Added
- A thing.

## [1.1.0] - 2026-10-01

### Fixed
- Another.
"""


@pytest.mark.parametrize("version", ["1.2.0", "1.1.0"])
def test_a_section_with_its_day_and_entries_is_all_that_is_needed(version: str) -> None:
    assert lacking(RELEASED, version) == []


@pytest.mark.parametrize(
    ("planted", "complaint"),
    [
        (("## [1.2.0] - 2026-11-27", "## [1.2.1] - 2026-11-27"), "has no section of 1.2.0"),
        (("## [1.2.0] - 2026-11-27", "## 1.2.0"), "has no section of 1.2.0"),
        (("[1.2.0] - 2026-11-27", "[1.2.0]"), "has no day"),
        (("2026-11-27", "2026-11-31"), "has no day"),
        (("### Added\n- A thing.\n", "### Added\n"), "is empty"),
        (("## [Unreleased]\n", "## [Unreleased]\n- More.\n"), "1 entry under Unreleased"),
        (("## [Unreleased]\n", "## [Unreleased]\n### Fixed\n- More.\n  And\n- More.\n"), "2 entries under Unreleased"),
    ],
)
def test_says_what_is_lacking(planted: tuple[str, str], complaint: str) -> None:
    assert planted[0] in RELEASED
    (reason,) = lacking(RELEASED.replace(*planted, 1), "1.2.0")
    assert complaint in reason


def test_reads_the_changelog_of_kgents() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    heading = "## [Unreleased]\n"
    assert heading in text
    assert lacking(text.replace(heading, f"{heading}\n## [99.0.0] - 2026-11-27\n\n- All.\n", 1), "99.0.0") == []
    assert lacking(text.replace(heading, f"{heading}\n### Added\n- A thing.\n", 1), "99.0.0")
