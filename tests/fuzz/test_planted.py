"""The controls: what a kgents with a fault in its API does is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.api import fuzz
from tests.fuzz.planted import PLANTED
from tests.support.results import record
from tests.support.up import UNMEASURED, Up

# By the fault: how it is called.
FOUND = {
    "no key": "without a caller's key",
    "an error": "was answered 500",
    "another answer": "violates schema",
}


# What is wrong with an answer is also found in the short form as an error.
FAULTS = [pytest.param(fault, marks=pytest.mark.full if fault == "another answer" else ()) for fault in PLANTED]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_api_is_found(fault: str, tmp_path: Path) -> None:
    up = Up(
        tmp_path / "data",
        environment={"PLANT": fault, "KGENTS_INVOICE_DELAY": "0", **UNMEASURED},
        module="tests.fuzz.planted",
    ).start()
    try:
        chunk = fuzz(up, "owner", 1, 10, tmp_path / "chunk", only=[PLANTED[fault][1]])
    finally:
        up.stop()
    assert FOUND[fault] in chunk.complaint()
    record("Conformant API, control", "KGENTS_FULL=1 pytest tests/fuzz/test_planted.py", f"{fault}: found", chunk.seed)
