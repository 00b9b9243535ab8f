"""What is accepted is accepted by somebody, for a reason, and for a time."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from kgents.errors import Unprocessable
from kgents.scan.exceptions import FILE, LONGEST, Acceptance, load, sort
from kgents.scan.model import Finding, Severity

TODAY = date(2026, 11, 26)
FINDING = Finding("osv", "PYSEC-2019-217", "uv.lock: jinja2 2.10", Severity.HIGH, "sandbox", ("CVE-2019-10906",))
GOOD = {
    "scanner": '"osv"',
    "rule": '"CVE-2019-10906"',
    "where": '"uv.lock: jinja2 *"',
    "reason": '"templates are ours"',
    "owner": '"platform"',
    "until": "2026-11-26",
}


def accepted(**changed: object) -> Acceptance:
    values = {
        "scanner": "osv",
        "rule": FINDING.rule,
        "where": "*",
        "reason": "r",
        "owner": "o",
        "until": TODAY,
    }
    return Acceptance(**{**values, **changed})


def written(tree: Path, **changed: str) -> Path:
    path = tree / FILE
    path.parent.mkdir()
    lines = [f"{name} = {value}" for name, value in {**GOOD, **changed}.items() if value]
    path.write_text("[[exception]]\n" + "\n".join(lines) + "\n")
    return tree


@pytest.mark.parametrize("text", ["exception = [1]", "exception = ['osv']", "exception = 1", "[exception]\nrule = 'x'"])
def test_what_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    (path := tmp_path / FILE).parent.mkdir()
    path.write_text(text)
    with pytest.raises(Unprocessable, match=r"nothing but \[\[exception\]\] tables"):
        load(tmp_path, TODAY)


def test_one_covers_an_advisory_by_any_of_its_names_through_its_last_day(tmp_path: Path) -> None:
    found = sort([FINDING], load(written(tmp_path), TODAY), TODAY, [])
    assert found.open == []
    assert found.expired == []


def test_one_may_hold_for_400_days(tmp_path: Path) -> None:
    assert load(written(tmp_path, until="2027-12-31"), TODAY)[0].until == TODAY + LONGEST


def test_an_expired_one_covers_nothing_and_is_named(tmp_path: Path) -> None:
    found = sort([FINDING], load(written(tmp_path), TODAY), date(2026, 11, 27), [])
    assert found.open == [FINDING]
    assert [each.rule for each in found.expired] == ["CVE-2019-10906"]


@pytest.mark.parametrize(
    "other", [{"scanner": "checkov"}, {"rule": "CVE-2000-1"}, {"where": "image:*"}, {"where": "uv.lock"}]
)
def test_one_for_something_else_covers_nothing(other: dict[str, str]) -> None:
    found = sort([FINDING], [accepted(**other)], TODAY, [])
    assert found.open == [FINDING]
    assert len(found.unused) == 1


def test_one_of_a_scanner_that_did_not_look_is_not_said_to_cover_nothing() -> None:
    assert sort([], [accepted()], TODAY, ["osv"]).unused == []
    assert len(sort([], [accepted()], TODAY, ["checkov"]).unused) == 1


def test_what_is_less_than_high_needs_none() -> None:
    low = Finding("hadolint", "DL3008", "Dockerfile:10", Severity.MEDIUM, "pin")
    assert sort([low], [], TODAY, []).open == []


def test_a_tree_without_the_file_accepts_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, TODAY) == []


@pytest.mark.parametrize("name", sorted(GOOD))
def test_one_that_lacks_something_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Unprocessable, match=f"has no {name}"):
        load(written(tmp_path, **{name: ""}), TODAY)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"until": '"2026-11-26"'}, "without quotes"),
        ({"until": "2026-11-26T00:00:00Z"}, "without quotes"),
        ({"until": "2028-01-01"}, "400 days at most"),
        ({"until": "9999-12-31"}, "400 days at most"),
        ({"reason": '" "', "owner": '""'}, "has no owner"),
        ({"reason": "3"}, "no text"),
        ({"ticket": '"x"'}, "ticket, which means nothing"),
        ({"status": '"fine"'}, "status"),
        ({"justification": '"component_not_present"'}, "not_affected"),
    ],
)
def test_one_that_is_malformed_is_refused(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    with pytest.raises(Unprocessable, match=said):
        load(written(tmp_path, **changed), TODAY)
