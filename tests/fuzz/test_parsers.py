"""Our own parsers of what callers send, fuzzed: only documented refusals, and what is taken is taken rightly."""

from __future__ import annotations

import importlib
import os
import secrets
from pathlib import Path

import pytest

from tests.fuzz.fuzzer import MISSING, run
from tests.support.results import record

FULL = bool(os.environ.get("KGENTS_FULL"))
EXECUTIONS = 10_000_000 if FULL else 20_000
SECONDS = int(os.environ.get("KGENTS_FUZZ_SECONDS", 3600)) if FULL else 120
COMMAND = "KGENTS_FULL=1 pytest tests/fuzz/test_parsers.py"
CONTROL = "planted"
TARGETS = sorted(
    path.stem for path in (Path(__file__).parent / "targets").glob("*.py") if path.stem not in ("__init__", CONTROL)
)
needs_atheris = pytest.mark.skipif(bool(MISSING), reason=MISSING)


def seed_of() -> int:
    return int(os.environ.get("KGENTS_SEED") or 1 + secrets.randbelow(2**31 - 1))


@pytest.mark.parametrize("target", TARGETS)
def test_the_parser_takes_or_refuses_its_seeds(target: str) -> None:
    module = importlib.import_module(f"tests.fuzz.targets.{target}")
    assert module.SEEDS
    for data in module.SEEDS:
        module.check(data)


@needs_atheris
@pytest.mark.parametrize("target", TARGETS)
def test_the_parser_withstands_the_fuzzer(target: str, tmp_path: Path) -> None:
    seed = seed_of()
    outcome = run(f"tests.fuzz.targets.{target}", tmp_path / "run", seed=seed, executions=EXECUTIONS, seconds=SECONDS)
    assert not outcome.found, f"KGENTS_SEED={seed}: {outcome.found}"
    enough = "" if outcome.executions >= EXECUTIONS else f", stopped after {SECONDS} s"
    assert outcome.executions >= EXECUTIONS or FULL
    record("Safe parsers", COMMAND, f"{target}: {outcome.executions:,} executions{enough}, 0 crashes, 0 hangs", seed)


@needs_atheris
def test_a_planted_crash_is_found(tmp_path: Path) -> None:
    outcome = run(f"tests.fuzz.targets.{CONTROL}", tmp_path / "run", seed=seed_of(), executions=5_000_000, seconds=120)
    assert "IndexError" in outcome.found
    record("Safe parsers, control", COMMAND, f"planted: found after {outcome.executions:,} executions", outcome.seed)
