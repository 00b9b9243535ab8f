"""Each scanner sees what is planted: one that finds nothing anywhere proves nothing."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from kgents.clock import ManualClock, from_rfc3339
from kgents.scan.lock import Package
from kgents.scan.model import Finding, Severity, Verdict
from kgents.scan.osv import affects
from kgents.scan.service import Report, scan
from kgents.scan.subject import Subject
from kgents.scan.toolbox import Toolbox
from tests.scan import planted
from tests.support.manifests import kubectl

CLOCK = ManualClock(from_rfc3339("2024-02-20T00:00:00Z"))  # four days after the latest change to the planted advisories
IN_THE_TREE = ("osv", "trivy-config", "checkov", "hadolint", "secrets")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    planted.write_tree(folder / "tree")
    planted.write_database(folder / "osv.zip")
    return folder


def subject(folder: Path, work: Path, **more: Path) -> Subject:
    return Subject(folder / "tree", work, Toolbox.usual(), CLOCK.now(), osv=str(folder / "osv.zip"), **more)


@pytest.fixture(scope="module")
def report(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """What the scanners of a tree say of the planted one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{kubectl().parent}:{os.environ['PATH']}")
        return scan(subject(folder, tmp_path_factory.mktemp("work")), [], clock=CLOCK, only=IN_THE_TREE)


@pytest.fixture
def osv_service() -> Iterator[str]:
    """OSV's API as pip-audit asks it, over the planted advisories."""
    advisories = [json.loads(path.read_text()) for path in planted.ADVISORIES.glob("*.json")]

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            package = Package(asked["package"]["name"], asked["version"], "")
            answer = json.dumps({"vulns": [each for each in advisories if affects(each, package)]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with HTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query"
        finally:
            server.shutdown()
            thread.join()


def found(report: Report, scanner: str) -> list[Finding]:
    [entry] = [each for each in report.entries if each.scanner == scanner]
    assert not entry.scanned.unknown
    return list(entry.scanned.findings)


def verdicts(report: Report) -> dict[str, Verdict]:
    return {entry.scanner: report.verdict_of(entry) for entry in report.entries}


def test_each_scanner_fails(report: Report) -> None:
    assert verdicts(report) == dict.fromkeys(IN_THE_TREE, Verdict.FAIL)
    assert report.verdict is Verdict.FAIL


def test_an_old_jinja2_in_the_lock_file(report: Report) -> None:
    assert [(each.rule, each.where) for each in found(report, "osv")] == [
        ("PYSEC-2019-217", "uv.lock: jinja2 2.10"),
        ("PYSEC-2021-66", "uv.lock: jinja2 2.10"),
    ]


@pytest.mark.parametrize(("scanner", "rule"), [("trivy-config", "AVD-KSV-0017"), ("checkov", "CKV_K8S_16")])
def test_a_privileged_pod_also_where_it_says_that_it_is_fine(report: Report, scanner: str, rule: str) -> None:
    [finding] = [each for each in found(report, scanner) if each.rule == rule]
    assert finding.where == "deploy/overlays/planted/Pod.planted.yaml"
    assert finding.severity is Severity.HIGH


def test_a_bad_line_of_a_dockerfile_also_where_a_remark_excuses_it(report: Report) -> None:
    [finding] = [each for each in found(report, "hadolint") if each.rule == "DL3004"]
    assert finding.where == "deploy/image/Dockerfile:4"
    assert finding.severity is Severity.HIGH
    assert "AVD-DS-0010" in {each.rule for each in found(report, "trivy-config")}


def test_keys_in_the_tree_tests_included(report: Report) -> None:
    assert {(each.rule, each.where) for each in found(report, "secrets")} == {
        ("aws-access-key-id", "settings.ini:1"),
        ("kgents-api-key", "tests/test_keys.py:1"),
    }


def test_a_report_does_not_tell_the_secrets(report: Report) -> None:
    assert planted.AWS_KEY not in str(report.document())
    assert planted.KGENTS_KEY not in str(report.document())


def test_a_package_under_the_gpl(folder: Path, tmp_path: Path) -> None:
    environment = planted.write_environment(tmp_path / "environment")
    (work := tmp_path / "work").mkdir()
    report = scan(subject(folder, work, environment=environment), [], clock=CLOCK, only=["licences"])

    assert [(each.rule, each.where) for each in found(report, "licences")] == [("denied-licence", "planted 1")]
    assert report.verdict is Verdict.FAIL


@pytest.mark.parametrize("write", [planted.write_docker_archive, planted.write_oci_layout])
def test_a_key_that_a_later_layer_removes(folder: Path, tmp_path: Path, write) -> None:
    image = write(tmp_path / "image")
    (work := tmp_path / "work").mkdir()
    report = scan(subject(folder, work, image=image), [], clock=CLOCK, only=["image-secrets", "osv"])

    [secret] = found(report, "image-secrets")
    assert secret.rule == "aws-access-key-id"
    assert secret.where.startswith("/app/settings.ini:1 in layer sha256:")
    assert "image: jinja2 2.10" in {each.where for each in found(report, "osv")}


def test_pip_audit_with_a_service_that_answers(
    folder: Path, tmp_path: Path, osv_service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", osv_service)
    report = scan(subject(folder, tmp_path), [], clock=CLOCK, only=["pip-audit"])

    assert {each.where for each in found(report, "pip-audit")} == {"uv.lock: jinja2 2.10"}
    assert {"PYSEC-2019-217", "PYSEC-2021-66"} <= {
        name for each in found(report, "pip-audit") for name in (each.rule, *each.also)
    }
    assert report.verdict is Verdict.FAIL
