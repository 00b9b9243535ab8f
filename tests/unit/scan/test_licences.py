"""Which licences are denied, however a package says which it has."""

from __future__ import annotations

from importlib.metadata import Distribution

import pytest

from kgents.scan.licences import judge, licence_of, verdict
from kgents.scan.model import Severity


class Package(Distribution):
    """An installed package with these lines of metadata."""

    def __init__(self, *lines: str) -> None:
        self._lines = lines

    def read_text(self, filename: str) -> str | None:
        return "\n".join(["Metadata-Version: 2.4", "Name: a", "Version: 1", *self._lines, "", ""])

    def locate_file(self, path: object) -> object:  # type: ignore[override]
        raise FileNotFoundError(path)


@pytest.mark.parametrize(
    "said",
    [
        "MIT",
        "Apache-2.0 OR BSD-3-Clause",
        "MPL-2.0 AND (Apache-2.0 OR MIT)",
        "GPL-2.0-only OR MIT",
        "(GPL-3.0-or-later AND MIT) OR Apache-2.0",
        "Apache Software License",
    ],
)
def test_permissive_ones_are_fine(said: str) -> None:
    assert verdict(said, is_expression=True) is None


@pytest.mark.parametrize(
    "said",
    [
        "",
        "GPL-3.0-only",
        "AGPL-3.0-or-later",
        "MIT AND GPL-2.0-only",
        "MIT AND (GPL-2.0-only OR AGPL-3.0-only)",
        "GPL-2.0-only WITH Classpath-exception-2.0",
        "GNU Affero General Public License v3",
        "GNU General Public License v2 or later GPLv2+",
        "(GPL-3.0-only",
        "SSPL-1.0",
        "BUSL-1.1",
        "CC-BY-NC-SA-4.0",
        "LicenseRef-Proprietary",
        "EUPL-1.2",
        "European Union Public Licence 1.2 EUPL 1.2",
        "OSL-3.0",
        "NPOSL-3.0",
        "CC-BY-SA-4.0",
    ],
)
def test_what_is_denied_or_not_said_is_high(said: str) -> None:
    assert verdict(said, is_expression=True) is Severity.HIGH


@pytest.mark.parametrize(
    "said",
    [
        "GPLv3 or later",
        "GNU GPL v2 or any later version",
        "GNU GPLv3 or newer",
        "GPL V2 OR LATER",
        "GPL-2.0 (or, at your option, a later one)",
        "MIT or GPL-3.0-only",
    ],
)
def test_an_or_in_words_is_no_alternative(said: str) -> None:
    assert verdict(said) is Severity.HIGH


def test_an_or_in_a_classifier_is_none_either() -> None:
    lesser = "Classifier: License :: OSI Approved :: GNU Library or Lesser General Public License (LGPL)"
    assert [each.severity for each in judge([Package(lesser)])] == [Severity.MEDIUM]


def test_an_or_in_an_expression_is_one() -> None:
    assert judge([Package("License-Expression: GPL-2.0-only OR MIT")]) == []


def test_the_lesser_one_is_told_of() -> None:
    assert verdict("LGPL-3.0-only") is Severity.MEDIUM
    assert verdict("GNU Lesser General Public License v3") is Severity.MEDIUM
    assert verdict("LGPL-3.0-only AND GPL-3.0-only", is_expression=True) is Severity.HIGH


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["License-Expression: MIT", "Classifier: License :: OSI Approved :: Apache Software License"], "MIT"),
        (["License: BSD", "Classifier: License :: OSI Approved :: MIT License"], "(MIT License)"),
        (["Classifier: License :: OSI Approved", "License: ISC"], "ISC"),
        (["License: UNKNOWN"], ""),
        ([], ""),
    ],
)
def test_the_most_exact_of_what_a_package_says_counts(lines: list[str], said: str) -> None:
    assert licence_of(Package(*lines))[0] == said


def test_a_planted_package_is_found_by_its_classifier() -> None:
    gpl = "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)"
    assert [(each.rule, each.where) for each in judge([Package(gpl), Package("License: MIT")])] == [
        ("denied-licence", "a 1")
    ]
