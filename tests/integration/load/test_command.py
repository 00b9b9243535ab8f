"""`kgents loadtest` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.loads import report


@pytest.fixture
def kgents(tmp_path: Path, vegeta: Path) -> Cli:
    return Cli(tmp_path, PATH=f"{vegeta.parent}:/usr/bin:/bin")


def test_a_kgents_of_its_own(kgents: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"

    done = kgents("loadtest", "--up", "--seconds", "2", "--target-ms", "5000", "--out", out)

    document = json.loads((out / "load-smoke.json").read_text())
    # The tests' machine may have more to do than to start requests in time; then it has to say so.
    assert {reason["code"] for reason in document["reasons"]} <= {"generator-late"}, done
    assert (done.status, done.stdout.partition(":")[0].split("\n")[0]) == (
        (0, "valid") if document["valid"] else (1, "NOT VALID")
    )
    assert "smoke: 20 requests/s for 2 s" in done.stderr
    assert "\x1b" not in done.stderr
    assert {"up", "api", "worker", "nats", "meter"} == set(document["steps"][0]["processes"])
    assert document["target"]["commit"] != "unknown"
    assert "| chat |" in (out / "load-smoke.md").read_text()
    assert (out / "load-smoke.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_of_reports(kgents: Cli, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "load-test-baseline.md"
    (tmp_path / "load-smoke.json").write_text(json.dumps(report(profile={**report()["profile"], "name": "smoke"})))

    assert kgents("loadtest", "page", tmp_path, page).status == 0

    assert "![smoke](load-smoke.png)" in page.read_text()
    assert (page.parent / "load-smoke.png").exists()


def test_a_report_that_is_not_valid_is_not_taken_for_the_page(kgents: Cli, tmp_path: Path) -> None:
    found = report(valid=False, reasons=[{"code": "generator-rate", "text": "the generator sent too little"}])
    (tmp_path / "load-baseline.json").write_text(json.dumps(found))

    complaint = kgents("loadtest", "page", tmp_path, tmp_path / "page.md").complaint

    assert "the generator sent too little" in complaint
    assert not (tmp_path / "page.md").exists()
