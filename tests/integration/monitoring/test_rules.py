"""The rules of Prometheus, by its own tool."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from monitoring import rules
from tests.integration.monitoring.alert_cases import CASES
from tests.support.manifests import ROOT
from tests.support.prometheus import program

FILE = ROOT / "deploy/components/prometheus-rules/kgents.rules.yaml"


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [program("promtool"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def outcome(folder: Path, *cases: dict) -> subprocess.CompletedProcess[str]:
    document = {"rule_files": [str(FILE)], "evaluation_interval": "5m", "tests": list(cases)}
    (folder / "tests.yaml").write_text(yaml.safe_dump(document))
    return promtool("test", "rules", folder / "tests.yaml")


def test_the_rules_are_rules_and_follow_its_lint() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", FILE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_and_stays_quiet_as_it_should(tmp_path: Path) -> None:
    done = outcome(tmp_path, *(case.test() for case in CASES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_expectation_is_noticed(tmp_path: Path) -> None:
    """The control of the test above."""
    case = CASES[0].test()
    case["promql_expr_test"][0]["exp_samples"] = []
    assert outcome(tmp_path, case).returncode == 1


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    alerts = {
        (rule["alert"], rule["labels"]["severity"])
        for group in rules.groups()
        for rule in group["rules"]
        if "alert" in rule
    }
    for fires in (True, False):
        assert {(case.alert, case.severity) for case in CASES if case.fires is fires} == alerts
