"""Which versions an advisory means, and what a database is good for."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kgents.clock import SECOND, from_rfc3339
from kgents.scan.lock import Package
from kgents.scan.model import Severity
from kgents.scan.osv import DAY, LEAST, Database, Undecided, affects, scan
from kgents.scan.toolbox import Broken

FOLDER = Path(__file__).parents[2] / "scan" / "advisories"
REAL = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
LATEST = from_rfc3339("2024-02-16T13:47:54.655573Z")
WEEK = 7 * 86_400 * SECOND


def package(name: str, version: str) -> Package:
    return Package(name, version, "uv.lock")


def advisory(*events: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """One about the package `a`."""
    affected = {"package": {"ecosystem": "PyPI", "name": "A"}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    return {"id": "X-1", "modified": "2024-02-16T00:00:00Z", "affected": [affected], **more}


def database(*advisories: Mapping[str, Any], others: int = LEAST) -> Database:
    """These advisories, and others about a package that nobody asks for."""
    data = io.BytesIO()
    other = advisory(modified="2020-01-01T00:00:00Z")
    other["affected"][0]["package"]["name"] = "z"
    with zipfile.ZipFile(data, "w") as archive:
        for number, each in enumerate([*advisories, *[other] * others]):
            archive.writestr(f"{number}.json", json.dumps(each))
    return Database.read(data.getvalue())


@pytest.mark.parametrize(
    ("name", "version", "means"),
    [
        ("PYSEC-2019-217", "2.10", True),
        ("PYSEC-2019-217", "2.10.1", False),
        ("PYSEC-2019-217", "2.10.1.dev1", True),
        ("PYSEC-2019-217", "2.10.post1", True),
        ("PYSEC-2021-66", "2.11.2", True),
        ("PYSEC-2021-66", "2.11.3", False),
        ("PYSEC-2014-8", "2.10", False),
    ],
)
def test_a_range_ends_before_the_version_that_fixes_it(name: str, version: str, means: bool) -> None:
    assert affects(REAL[name], package("jinja2", version)) is means


@pytest.mark.parametrize(
    ("version", "means"), [("1.11.0", True), ("1.11", True), ("1.11.0.post1", False), ("2", False)]
)
def test_a_range_may_end_with_the_last_that_is_affected(version: str, means: bool) -> None:
    assert affects(REAL["PYSEC-2022-42969"], package("py", version)) is means


@pytest.mark.parametrize(
    ("version", "means"),
    [("2.14.3", True), ("2.14.4", False), ("2.15.8", True), ("2.15.9", False), ("2.16.2", True), ("2.16.3", False)],
)
def test_a_range_may_have_gaps_and_its_events_any_order(version: str, means: bool) -> None:
    assert affects(REAL["PYSEC-2024-36"], package("ansible-core", version)) is means


def test_a_limit_bounds_what_a_range_says() -> None:
    limited = advisory({"introduced": "0"}, {"limit": "2.0"})
    assert affects(limited, package("a", "1.9"))
    assert not affects(limited, package("a", "2.0"))
    assert affects(advisory({"introduced": "0"}, {"limit": "*"}), package("a", "9"))


def test_a_version_that_is_listed_is_meant_however_it_is_written() -> None:
    listed = advisory()
    listed["affected"][0]["versions"] = ["1.0-RC1", "2004d"]
    assert affects(listed, package("a", "1.0rc1"))
    assert not affects(listed, package("a", "1.0"))


@pytest.mark.parametrize(
    ("version", "means"),
    [("2.1.0+cpu", True), ("2.1.0", True), ("2.1.1+cpu", False), ("2.0", False), ("2.2+cu1", True), ("2.2", False)],
)
def test_a_build_of_ones_own_is_the_version_that_is_listed(version: str, means: bool) -> None:
    listed = advisory()
    listed["affected"][0]["versions"] = ["2.1.0", "2.2+cu1"]
    assert affects(listed, package("a", version)) is means


@pytest.mark.parametrize(("version", "means"), [("2.1.0+cpu", True), ("2.1.1+cpu", False), ("1.9+cpu", False)])
def test_a_build_of_ones_own_is_within_the_range_of_its_version(version: str, means: bool) -> None:
    assert affects(advisory({"introduced": "2.0"}, {"last_affected": "2.1.0"}), package("a", version)) is means
    assert affects(advisory({"introduced": "2.0"}, {"fixed": "2.1.1"}), package("a", version)) is means


def test_what_names_no_versions_of_pypi_is_not_decided() -> None:
    git = advisory({"introduced": "0"})
    git["affected"][0]["ranges"][0]["type"] = "GIT"
    with pytest.raises(Undecided):
        affects(git, package("a", "1"))
    assert "X-1 for a 1" in scan([package("a", "1")], database(git), LATEST).unknown


def test_data_of_the_future_and_a_part_of_the_data_do_not_clear() -> None:
    clean = [package("a", "1")]
    later = database(advisory(modified="2999-01-01T00:00:00Z"))
    assert "yet to come" in scan(clean, later, LATEST).unknown
    assert scan(clean, database(advisory()), LATEST - DAY // 2).unknown == ""
    assert "1,999 advisories" in scan(clean, database(advisory(), others=LEAST - 2), LATEST).unknown


def test_other_ecosystems_are_not_meant() -> None:
    other = advisory({"introduced": "0"})
    other["affected"][0]["package"]["ecosystem"] = "npm"
    assert not affects(other, package("a", "1"))


def test_a_planted_jinja2_is_found() -> None:
    found = scan([package("jinja2", "2.10"), package("aiohttp", "3.9")], database(*REAL.values()), LATEST)

    assert [(each.rule, each.where) for each in found.findings] == [
        ("PYSEC-2019-217", "uv.lock: jinja2 2.10"),
        ("PYSEC-2021-66", "uv.lock: jinja2 2.10"),
    ]  # and nothing of aiohttp, whose advisory is withdrawn
    assert "CVE-2019-10906" in found.findings[0].also
    assert found.unknown == ""


def test_data_of_more_than_a_week_ago_finds_and_does_not_clear() -> None:
    fresh = scan([package("jinja2", "3.1.6")], database(*REAL.values()), LATEST + WEEK)
    old = scan([package("jinja2", "2.10")], database(*REAL.values()), LATEST + WEEK + 1)

    assert fresh.unknown == ""
    assert fresh.database.startswith("2024-02-16T13:47:54")
    assert "2024-02-16" in old.unknown
    assert len(old.findings) == 2


def test_two_advisories_on_one_flaw_are_one_finding_at_the_worse_of_their_severities() -> None:
    one = advisory({"introduced": "0"}, aliases=["CVE-1"], database_specific={"severity": "MODERATE"})
    other = {**one, "id": "X-2", "database_specific": {"severity": "CRITICAL"}}
    found = scan([package("a", "1")], database(one, other), 0).findings

    assert [(each.rule, each.severity, each.also) for each in found] == [("X-1", Severity.CRITICAL, ("CVE-1", "X-2"))]


@pytest.mark.parametrize(
    ("more", "severity"),
    [
        ({}, Severity.HIGH),
        ({"database_specific": {"severity": "LOW"}}, Severity.LOW),
        ({"severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:L/AC:L/PR:N/UI:R/S:U/C:N/I:N/A:H"}]}, Severity.MEDIUM),
        ({"severity": [{"type": "CVSS_V3", "score": "?"}]}, Severity.HIGH),
        ({"severity": [{"type": "CVSS_V4", "score": "CVSS:4.0/AV:N"}]}, Severity.HIGH),
    ],
)
def test_a_severity_that_is_not_told_is_high(more: dict[str, Any], severity: Severity) -> None:
    found = scan([package("a", "1")], database(advisory({"introduced": "0"}, **more)), 0).findings
    assert [each.severity for each in found] == [severity]


def test_a_range_that_nobody_can_order_is_not_decided() -> None:
    found = scan([package("a", "1")], database(advisory({"introduced": "2004d"})), LATEST)
    assert "X-1 for a 1" in found.unknown


@pytest.mark.parametrize("data", [b"", b"no zip"])
def test_what_is_no_database_is_broken(data: bytes) -> None:
    with pytest.raises(Broken):
        Database.read(data)


def test_an_empty_database_is_broken() -> None:
    with pytest.raises(Broken, match="no advisory"):
        database(others=0)
    with pytest.raises(Broken, match="can't be read"):
        database({"id": "X-1"})
