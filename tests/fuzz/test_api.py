"""The whole OpenAPI document against a running kgents: no 5xx, every answer as documented, no way around the key."""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from pathlib import Path

import httpx2
import pytest

from tests.faults.systems import FULL
from tests.fuzz.api import CALLERS, Fuzzed, fuzz
from tests.isolation.catalog import PLATFORM_PATHS
from tests.isolation.systems import running
from tests.support.results import record

CASES = 50_000 if FULL else 1_500  # on each database
EXAMPLES = 120 if FULL else 8  # of each operation in a chunk, beside those of the coverage phase
MAX_SECONDS = 3600
COMMAND = "KGENTS_FULL=1 pytest tests/fuzz/test_api.py"
PAYING_PATHS = ("/v1/subscription", "/v1/invoices/")


@pytest.mark.parametrize("dialect", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_the_api_does_what_its_document_says(dialect: str, tmp_path: Path) -> None:
    """In chunks, each of one caller, with a seed and a kgents of its own."""
    seed = first = int(os.environ.get("KGENTS_SEED") or 2 * secrets.randbelow(2**30) + (dialect == "postgresql"))
    ended = time.monotonic() + MAX_SECONDS
    chunks: list[Fuzzed] = []
    secured: set[str] = set()
    while sum(chunk.cases for chunk in chunks) < CASES and time.monotonic() < ended:
        caller = CALLERS[seed % 2]
        print(f"{dialect}: {caller}, KGENTS_SEED={seed}")
        with running(dialect, tmp_path / f"data{seed}") as system:
            secured |= operations(system.up.url, caller)
            chunk = fuzz(system.up, caller, seed, EXAMPLES, tmp_path / f"chunk{seed}")
        assert chunk.sound, f"{dialect}: {chunk.complaint()}"
        chunks.append(chunk)
        seed += 1
    cases = sum(chunk.cases for chunk in chunks)
    assert cases >= CASES
    assert all(chunk.steps for chunk in chunks)
    accepted, unauthenticated = (sum((counts for counts in of), Counter[str]()) for of in _counts(chunks))
    # Requests without a key are made up for every operation; schemathesis itself tries the operations that it was let
    # in to, which in a short run may not be all.
    assert not sorted(secured - set(unauthenticated)), "never asked for without a key"
    never = sorted(secured - set(+accepted))
    assert len(never) <= (0 if FULL else len(secured) // 10), f"never accepted: {never}"
    record(
        "Conformant API",
        COMMAND,
        f"{dialect}: {cases:,} cases in {len(chunks)} chunks, {sum(chunk.steps for chunk in chunks):,} of them by "
        f"following a link: 0 violations, 0 of status 5xx; of {sum(unauthenticated.values()):,} requests without a "
        "key, none was let in",
        first,
    )


def _counts(chunks: list[Fuzzed]) -> tuple[list[Counter[str]], list[Counter[str]]]:
    return [chunk.accepted for chunk in chunks], [chunk.unauthenticated for chunk in chunks]


def operations(url: str, caller: str) -> set[str]:
    """The operations that need a key, and that the caller may carry out: the platform's own tenant pays nothing."""
    paths = httpx2.get(f"{url}/openapi.json", trust_env=False).json()["paths"]
    return {
        f"{method.upper()} {path}"
        for path, methods in paths.items()
        for method, operation in methods.items()
        if operation.get("security") and not path.startswith(PAYING_PATHS if caller == "admin" else PLATFORM_PATHS)
    }
