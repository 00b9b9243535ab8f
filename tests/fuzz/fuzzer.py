"""Coverage-guided fuzzing of one target by Atheris: `python -m tests.fuzz.fuzzer TARGET FOLDER [libFuzzer's options]`.

Atheris must instrument the parser as it is imported, and ends its process, so each target has a process of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.up import UNMEASURED

ROOT = Path(__file__).parents[2]
MAX_INPUT = 2048  # bytes
HANG = 10  # seconds for one input
MEMORY = 1024  # MiB
_EXECUTIONS = re.compile(r"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)
_COVERED = re.compile(r" cov: (\d+) ")

MISSING = "" if importlib.util.find_spec("atheris") else "Atheris has no wheel for this Python or machine"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of the fuzzer came to. `found` is what it says of the input that broke the parser, or ''."""

    seed: int
    executions: int
    covered: int
    found: str


def run(target: str, folder: Path, *, seed: int, executions: int, seconds: int) -> Outcome:
    """Fuzz a target, a module's dotted name, until so many executions, or for so long, or until something is found."""
    options = [f"-seed={seed}", f"-runs={executions}", f"-max_total_time={seconds}", f"-max_len={MAX_INPUT}"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.fuzzer", target, folder, *options],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds + 120,
        cwd=ROOT,
        env={**os.environ, **UNMEASURED},
    )
    said = done.stdout + done.stderr
    count, covered = _EXECUTIONS.search(said), _COVERED.findall(said)
    found = "" if done.returncode == 0 else f"exit status {done.returncode}\n{said[-4000:]}"
    return Outcome(seed, int(count[1]) if count else 0, int(covered[-1]) if covered else 0, found)


def _fuzz(target: str, folder: Path, options: list[str]) -> None:
    import atheris

    # What makes values of the fuzzer's bytes is not what is tested, and took a third of the time when it was watched.
    watched = {"include": ["kgents", "tests.fuzz"], "exclude": ["tests.fuzz.values"]}
    with atheris.instrument_imports(**watched, enable_loader_override=False):
        module = importlib.import_module(target)
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    for number, seed in enumerate(module.SEEDS):
        (corpus / f"seed{number}").write_bytes(seed)
    fixed = [f"-timeout={HANG}", f"-rss_limit_mb={MEMORY}", "-print_final_stats=1", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *fixed, *options, str(corpus)], module.check)
    atheris.Fuzz()


if __name__ == "__main__":
    _fuzz(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
