"""What `make lint` checks, as tests, so that one command says whether the tree is right."""

from __future__ import annotations

import subprocess

import pytest

from tests.architecture.source import ROOT


@pytest.mark.parametrize("check", ["lock", "style", "format", "types", "layers"])
def test_lint(check: str) -> None:
    answer = subprocess.run([ROOT / "scripts" / "lint", check], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
