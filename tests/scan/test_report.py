"""What scans come to: unknown is no pass, an exception ends, and one exit status says it all."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from kgents.clock import ManualClock, from_rfc3339, to_datetime
from kgents.scan.exceptions import FILE, load
from kgents.scan.model import Verdict
from kgents.scan.service import Report, scan
from kgents.scan.subject import Subject
from kgents.scan.toolbox import Toolbox
from tests.scan import planted
from tests.support.cli import Cli

DAY = 86_400
NEXT_YEAR = (datetime.now(UTC) + timedelta(days=300)).date().isoformat()
EXCEPTION = """[[exception]]
scanner = "hadolint"
rule = "DL3004"
where = "deploy/image/Dockerfile:*"
reason = "planted"
owner = "tests"
until = 2026-11-26
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return planted.write_tree(tmp_path / "tree")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(from_rfc3339("2026-11-26T23:59:59Z"))


def scanned(tree: Path, clock: ManualClock, *only: str, allow_unknown: bool = False, osv: str = "") -> Report:
    (work := tree.parent / "work").mkdir()
    subject = Subject(tree, work, Toolbox.usual(), clock.now(), osv=osv)
    accepted = load(tree, to_datetime(clock.now()).date())
    return scan(subject, accepted, clock=clock, only=only, allow_unknown=allow_unknown)


def put_trivy(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A `trivy` on the PATH that is this script, but for its version."""
    program = folder / "bin" / "trivy"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo "Version: 0.74.0"; exit; fi\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def with_exception(tree: Path, text: str = EXCEPTION) -> None:
    (tree / FILE).parent.mkdir()
    (tree / FILE).write_text(text)


def test_an_exception_holds_through_its_last_day(tree: Path, clock: ManualClock) -> None:
    with_exception(tree)
    report = scanned(tree, clock, "hadolint")

    assert report.verdict is Verdict.PASS
    assert [row["excepted"] for row in report.document()["scanners"]] == [1]


def test_a_second_later_it_fails_and_is_named(tree: Path, clock: ManualClock) -> None:
    with_exception(tree)
    clock.advance(1)
    document = scanned(tree, clock, "hadolint").document()

    assert document["verdict"] == "fail"
    assert [each["rule"] for each in document["expired_exceptions"]] == ["DL3004"]


def test_an_expired_one_fails_also_where_it_would_cover_nothing(tree: Path, clock: ManualClock) -> None:
    (tree / "deploy/image/Dockerfile").write_text("FROM docker.io/library/debian:12\n")
    with_exception(tree)
    clock.advance(DAY)

    assert scanned(tree, clock, "hadolint").verdict is Verdict.FAIL


def test_one_that_covers_nothing_is_named(tree: Path, clock: ManualClock) -> None:
    (tree / "deploy/image/Dockerfile").write_text("FROM docker.io/library/debian:12\n")
    with_exception(tree)
    document = scanned(tree, clock, "hadolint").document()

    assert document["verdict"] == "pass"
    assert [each["rule"] for each in document["unused_exceptions"]] == ["DL3004"]


def test_a_scanner_that_breaks_is_unknown(tree: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    put_trivy(tree.parent, monkeypatch, "echo 'no database' >&2; exit 1")
    document = scanned(tree, clock, "trivy", "secrets").document()

    assert document["verdict"] == "unknown"
    assert {row["verdict"] for row in document["scanners"]} == {"unknown"}
    assert {row["why"] for row in document["scanners"]} == {"Trivy failed: no database"}


@pytest.mark.parametrize("answer", ["", "{}", "[]", '{"SchemaVersion": 2, "Results": [{"Secrets": [{}]}]}'])
def test_a_scanner_whose_answer_means_nothing_is_unknown(
    tree: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    put_trivy(tree.parent, monkeypatch, f"echo '{answer}'")
    assert scanned(tree, clock, "secrets").verdict is Verdict.UNKNOWN


def test_unknown_may_be_allowed_and_the_report_says_so(tree: Path, clock: ManualClock) -> None:
    document = scanned(tree, clock, "osv", allow_unknown=True, osv=str(tree / "none.zip")).document()

    assert document["verdict"] == "pass"
    assert document["allow_unknown"] is True
    assert [row["verdict"] for row in document["scanners"]] == ["unknown"]


@pytest.mark.parametrize(("path", "verdict"), [("/osv.zip", Verdict.FAIL), ("/none.zip", Verdict.UNKNOWN)])
def test_the_database_may_come_from_an_address(tree: Path, clock: ManualClock, path: str, verdict: Verdict) -> None:
    (served := tree.parent / "served").mkdir()
    planted.write_database(served / "osv.zip")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=served)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            report = scanned(tree, clock, "osv", osv=f"http://127.0.0.1:{server.server_port}{path}")
        finally:
            server.shutdown()
            thread.join()
    assert report.verdict is verdict


def test_allowing_unknown_allows_no_finding(tree: Path, clock: ManualClock) -> None:
    database = planted.write_database(tree.parent / "osv.zip")
    report = scanned(tree, clock, "osv", allow_unknown=True, osv=str(database))

    assert report.entries[0].scanned.unknown.startswith("the latest change in its database is of 2024-02-16")
    assert report.verdict is Verdict.FAIL


@pytest.mark.parametrize("day", ["2026-11-20", "2026-11-01"])
def test_what_trivy_knows_to_be_vulnerable_fails_however_old_its_database(
    tree: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, day: str
) -> None:
    """Its database can't be had everywhere: this is a stand-in that answers as it does."""
    flaw = {"VulnerabilityID": "CVE-1", "PkgName": "jinja2", "InstalledVersion": "2.10", "Severity": "HIGH"}
    put_trivy(tree.parent, monkeypatch, _answers(day, [{"Target": "uv.lock", "Vulnerabilities": [flaw]}]))
    document = scanned(tree, clock, "trivy").document()

    assert document["verdict"] == "fail"
    assert [(each["rule"], each["where"]) for each in document["findings"]] == [("CVE-1", "uv.lock: jinja2 2.10")]


@pytest.mark.parametrize(("day", "verdict"), [("2026-11-20", "pass"), ("2026-11-19", "unknown")])
def test_an_old_database_of_trivy_clears_nothing(
    tree: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, day: str, verdict: str
) -> None:
    put_trivy(tree.parent, monkeypatch, _answers(day, [{"Target": "uv.lock"}]))
    assert scanned(tree, clock, "trivy").verdict == verdict


@pytest.mark.parametrize(("kind", "what"), [("fs", "lock file in the tree"), ("image", "packages in the image")])
def test_a_trivy_that_recognized_nothing_clears_nothing(
    tree: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, kind: str, what: str
) -> None:
    answer = _answers("2026-11-26", [{"Target": "uv.lock"}])
    put_trivy(
        tree.parent, monkeypatch, f'if [ "$1" = {kind} ]; then echo \'{{"SchemaVersion": 2}}\'; else {answer}; fi'
    )
    (image := tree.parent / "image.tar").touch()
    (work := tree.parent / "work").mkdir()
    subject = Subject(tree, work, Toolbox.usual(), clock.now(), image=image)
    report = scan(subject, [], clock=clock, only=["trivy"])

    assert report.verdict is Verdict.UNKNOWN
    assert what in report.entries[0].scanned.unknown


def test_a_trivy_that_somebody_else_published_is_not_run(
    tree: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_trivy(tree.parent, monkeypatch, f"touch {tree}/ran")
    program = tree.parent / "bin" / "trivy"
    program.write_text(program.read_text().replace("0.74.0", "0.69.5"))

    assert scanned(tree, clock, "secrets").verdict is Verdict.UNKNOWN
    assert not (tree / "ran").exists()


def test_a_tree_without_what_is_scanned_is_unknown(tmp_path: Path, clock: ManualClock) -> None:
    (tree := tmp_path / "empty").mkdir()
    report = scanned(tree, clock, "pip-audit", "osv", "checkov", "hadolint", "licences", "sbom", "image-secrets")
    assert {report.verdict_of(entry) for entry in report.entries} == {Verdict.UNKNOWN}


def test_the_command_fails_with_findings_and_writes_them_down(tree: Path, tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    done = cli("scan", "--tree", tree, "--only", "hadolint", "--report", tmp_path / "report.json")

    assert done.status == 1
    assert "DL3004" in done.stdout
    assert "verdict: fail" in done.stderr
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["verdict"] == "fail"
    assert document["left_out"]["osv"] == "not asked for"


def _git(tree: Path, *arguments: str) -> None:
    usual = ("-c", "user.name=tests", "-c", "user.email=tests@example.com")
    subprocess.run(["git", *usual, *arguments], cwd=tree, check=True, capture_output=True)


def _about(tree: Path, folder: Path, *options: str | Path) -> dict[str, Any]:
    """What the report says of what was scanned."""
    report = tree / "evidence" / "scan.json"
    Cli(folder)("scan", "--only", "hadolint", "--report", report, "--tree", tree, *options)
    document: dict[str, Any] = json.loads(report.read_text())
    return document


def test_the_report_says_whether_the_tree_is_as_it_was_committed(tree: Path, tmp_path: Path) -> None:
    _git(tree, "init")
    _git(tree, "add", "--all")
    _git(tree, "commit", "--message=all")
    first, again = _about(tree, tmp_path), _about(tree, tmp_path)  # its report is there, and changes nothing
    (tree / "new.py").touch()
    changed = _about(tree, tmp_path)

    assert len(first["commit"]) == 40
    assert (first["changed"], again["changed"], changed["changed"]) == (False, False, True)


def test_the_report_names_what_it_was_not_of_by_default(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = _about(tree, tmp_path, "--environment", tmp_path, "--osv-db", "osv.zip")
    assert {name: other.get(name) for name in ("tree", "environment", "osv_db")} == {
        "tree": str(tree),
        "environment": str(tmp_path),
        "osv_db": "osv.zip",
    }
    monkeypatch.chdir(tree)
    assert not {"tree", "environment", "osv_db"} & _about(tree, tmp_path).keys()


def test_the_command_passes_with_an_exception_that_holds(tree: Path, tmp_path: Path) -> None:
    with_exception(tree, EXCEPTION.replace("2026-11-26", NEXT_YEAR))
    done = Cli(tmp_path)("scan", "--tree", tree, "--only", "hadolint", "-o", "yaml")

    assert done.status == 0
    assert yaml.safe_load(done.stdout)["verdict"] == "pass"


def test_the_command_fails_without_the_bills_that_it_was_asked_for(tree: Path, tmp_path: Path) -> None:
    (tree / "deploy/image/Dockerfile").write_text("FROM docker.io/library/debian:12\n")
    done = Cli(tmp_path)("scan", "--tree", tree, "--only", "hadolint", "--sbom", tmp_path / "sbom")

    assert done.status == 1
    assert "verdict: pass" in done.stderr
    assert "nothing was written" in done.stderr


def test_the_command_exports_the_exceptions_that_hold(tree: Path, tmp_path: Path) -> None:
    with_exception(tree, EXCEPTION.replace("2026-11-26", NEXT_YEAR) + EXCEPTION.replace("2026-11-26", "2000-01-01"))
    done = Cli(tmp_path)("scan", "vex", "--tree", tree)

    assert done.status == 0
    assert [each["vulnerability"]["name"] for each in json.loads(done.stdout)["statements"]] == ["DL3004"]


def test_a_malformed_exception_is_one_line(tree: Path, tmp_path: Path) -> None:
    with_exception(tree, EXCEPTION.replace('owner = "tests"\n', ""))
    assert "has no owner" in Cli(tmp_path)("scan", "--tree", tree, "--only", "hadolint").complaint


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--only", "hadolint", "--report", "."), "is a directory"),
        (("--only", "hadolint", "--sbom", "{file}"), "is a file"),
        (("vex", "--file", "."), "is a directory"),
    ],
)
def test_a_file_that_is_a_folder_is_refused_before_anything_runs(
    tree: Path, tmp_path: Path, options: tuple[str, ...], why: str
) -> None:
    (file := tmp_path / "file").touch()
    done = Cli(tmp_path)("scan", *(each.format(file=file) for each in options), "--tree", tree)

    assert done.status == 2
    assert why in " ".join(done.stderr.split())


def test_a_report_that_can_not_be_written_is_one_line_before_anything_runs(tree: Path, tmp_path: Path) -> None:
    (file := tmp_path / "file").touch()
    done = Cli(tmp_path)("scan", "--tree", tree, "--only", "hadolint", "--report", file / "report.json")
    assert f"{file / 'report.json'} can't be written: " in done.complaint


def test_a_scanner_that_there_is_not(tmp_path: Path) -> None:
    done = Cli(tmp_path)("scan", "--only", "clamav")
    assert done.status == 2
    assert "hadolint" in done.stderr


def _answers(day: str, results: list[dict]) -> str:
    version = json.dumps({"Version": "0.74.0", "VulnerabilityDB": {"UpdatedAt": f"{day}T00:00:00.123456789Z"}})
    report = json.dumps({"SchemaVersion": 2, "Results": results})
    return f"if [ \"$1\" = version ]; then echo '{version}'; else echo '{report}'; fi"
