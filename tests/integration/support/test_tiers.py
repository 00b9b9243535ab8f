"""The plugin that reports tiers says what was left out and why, and in CI fails the run for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import tiers

ROOT = Path(tiers.__file__).parents[2]
MARKS = ("node", "postgres", "redis")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one passing test in each tier."""
    marks = "".join(f'    "{mark}",\n' for mark in MARKS)
    (tmp_path / "pyproject.toml").write_text(f"[tool.pytest.ini_options]\nmarkers = [\n{marks}]\n")
    for folder in tiers.FOLDERS:
        write(tmp_path, folder, "def test_it(): pass")
    for mark in MARKS:
        write(tmp_path, "integration", f"@pytest.mark.{mark}\ndef test_it(): pass", f"test_{mark}.py")
    return tmp_path


def write(project: Path, folder: str, source: str, name: str = "test_it.py") -> None:
    path = project / "tests" / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"import pytest\n{source}\n")


def run(project: Path, *, ci: bool) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.tiers", "-p", "no:cacheprovider"]
    environment = {
        **os.environ,
        "CI": "true" if ci else "",
        "PYTHONPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    command += ["--import-mode=importlib", "--color=no"]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def test_every_tier_that_ran_is_a_pass(project: Path) -> None:
    answer = run(project, ci=True)
    assert answer.returncode == 0, answer.stdout
    assert answer.stdout.count("ran       1 passed") == len(tiers.TIERS)


def test_a_tier_left_out_is_named_with_its_reason(project: Path) -> None:
    write(project, "integration", "@pytest.mark.redis\ndef test_it(): pytest.skip('no Redis')", "test_redis.py")
    answer = run(project, ci=False)
    assert answer.returncode == 0, answer.stdout
    assert f"{tiers.REDIS:<27} LEFT OUT  1 left out: no Redis" in answer.stdout


def test_a_tier_left_out_fails_in_ci(project: Path) -> None:
    write(project, "integration", "@pytest.mark.redis\ndef test_it(): pytest.skip('no Redis')", "test_redis.py")
    assert run(project, ci=True).returncode == 1


def test_a_tier_without_a_test_fails_in_ci(project: Path) -> None:
    (project / "tests" / "contract" / "test_it.py").unlink()
    assert run(project, ci=True).returncode == 1


def test_a_tier_left_out_in_part_fails_in_ci(project: Path) -> None:
    write(project, "unit", "def test_it(): pass\ndef test_other(): pytest.skip('later')")
    answer = run(project, ci=True)
    assert answer.returncode == 1
    assert f"{tiers.UNIT:<27} ran       1 passed, 1 left out: later" in answer.stdout


def test_a_failure_is_counted_in_its_tier(project: Path) -> None:
    write(project, "contract", "def test_it(): assert False")
    answer = run(project, ci=False)
    assert answer.returncode == 1
    assert f"{tiers.CONTRACT:<27} ran       0 passed, 1 failed" in answer.stdout


def test_what_failed_is_told_at_the_end_with_what_it_raised(project: Path) -> None:
    write(project, "contract", "def test_it(): raise ValueError('first line\\nsecond line')")
    end = run(project, ci=False).stdout.partition(" what failed ")[2]
    assert re.search(
        r"\ntests/contract/test_it\.py::test_it \(call, 0 s, until ..:..:..\): ValueError: first line\nsecond line\n",
        end,
    )


def test_a_test_in_no_tier_is_refused(project: Path) -> None:
    write(project, "elsewhere", "def test_it(): pass")
    answer = run(project, ci=False)
    assert answer.returncode == pytest.ExitCode.USAGE_ERROR
    assert "is in no tier" in answer.stdout + answer.stderr
