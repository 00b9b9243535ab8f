"""Our own parsers of what callers send, fuzzed: only documented refusals, and what is taken is taken rightly."""

from __future__ import annotations

import importlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.faults.systems import FULL, new_seed
from tests.fuzz.fuzzer import MISSING, Outcome, run
from tests.support.results import record

SHARES = 4 if FULL else 1
"""The full count takes hours: shares of it, each with a seed of its own, can run at other times."""
EXECUTIONS = 10_000_000 // SHARES if FULL else 20_000
SECONDS = int(os.environ.get("KGENTS_FUZZ_SECONDS", 3600)) if FULL else 120
COMMAND = "KGENTS_FULL=1 pytest tests/fuzz/test_parsers.py"
CONTROL = "planted"
TARGETS = sorted(
    path.stem for path in (Path(__file__).parent / "targets").glob("*.py") if path.stem not in ("__init__", CONTROL)
)
LENGTH = 32_768  # bytes, more than the fuzzer's: what takes time as their square takes seconds for them
PATIENCE = 1.0  # seconds of CPU
PARTS = (
    *(
        b"a",
        b"1",
        b" ",
        b"\n",
        b'"',
        b"\\",
        b'"\\',
        b",",
        b"[",
        b"{",
        b"[],",
        b'{"a":',
        b"data: x\n\n",
        b"\r\n",
        b"/",
        b"%",
    ),
    *(
        b"%41",
        b".",
        b"a.",
        b"@",
        b"://",
        b"a://b:",
        b"(",
        b"1+",
        b"=",
        b"#",
        b"\xff",
        b"\xc3\xa9",
        b"\\ud800",
        b"Bearer ",
    ),
)
Outcomes = dict[tuple[str, int], Future[Outcome]]
needs_atheris = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.mark.parametrize("target", TARGETS)
def test_the_parser_takes_or_refuses_its_seeds(target: str) -> None:
    module = importlib.import_module(f"tests.fuzz.targets.{target}")
    assert module.SEEDS
    for data in module.SEEDS:
        module.check(data)


def slow(check: Callable[[bytes], None], seeds: Sequence[bytes]) -> Iterator[tuple[bytes, bytes, float]]:
    """The seeds, and what was repeated after them, that took the parser too long, with the seconds that it took."""
    for seed in seeds:
        for part in PARTS:
            began = time.process_time()
            check(seed + part * (LENGTH // len(part)))
            if (took := time.process_time() - began) > PATIENCE:
                yield seed, part, took


@pytest.mark.parametrize("target", TARGETS)
def test_the_parser_is_done_soon_with_what_is_long(target: str) -> None:
    module = importlib.import_module(f"tests.fuzz.targets.{target}")
    assert not list(slow(module.check, module.SEEDS))


def test_a_parser_that_takes_time_as_the_square_of_its_input_is_found() -> None:
    strings = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
    assert any(slow(lambda data: strings.sub(b"", data) and None, [b""]))


@pytest.fixture(scope="module")
def seed() -> int:
    return new_seed()


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, seed: int) -> Iterator[Outcomes]:
    """What is to come of each chosen share of a parser's fuzzing: as many at a time as there are processors."""
    chosen: list[tuple[Any, Any]] = [
        (item.callspec.params["target"], item.callspec.params["share"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == test_the_parser_withstands_the_fuzzer.__name__
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {
            (target, share): pool.submit(
                run,
                f"tests.fuzz.targets.{target}",
                tmp_path_factory.mktemp(target) / "run",
                seed=seed + share,
                executions=EXECUTIONS,
                seconds=SECONDS,
            )
            for target, share in chosen
        }
        pool.shutdown(cancel_futures=True)


@needs_atheris
@pytest.mark.parametrize("share", range(1, SHARES + 1))
@pytest.mark.parametrize("target", TARGETS)
def test_the_parser_withstands_the_fuzzer(target: str, share: int, outcomes: Outcomes, seed: int) -> None:
    outcome = outcomes[target, share].result()
    assert not outcome.found, f"KGENTS_SEED={seed}: {outcome.found}"
    enough = "" if outcome.executions >= EXECUTIONS else f" (stopped after {SECONDS} s)"
    assert FULL or not enough
    what = f"{target}, share {share} of {SHARES}"
    record("Safe parsers", COMMAND, f"{what}: {outcome.executions:,} executions{enough}, 0 crashes, 0 hangs", seed)


@needs_atheris
def test_a_planted_crash_is_found(tmp_path: Path) -> None:
    outcome = run(f"tests.fuzz.targets.{CONTROL}", tmp_path / "run", seed=new_seed(), executions=5_000_000, seconds=120)
    assert "IndexError" in outcome.found
    record("Safe parsers, control", COMMAND, f"planted: found after {outcome.executions:,} executions", outcome.seed)
