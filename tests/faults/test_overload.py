"""Three times the capacity: goodput, refusals, memory, and what a quiet tenant notices.

The short form shows what must hold on any machine: what is refused and how, that it is cheap, that nothing grows, that
the quiet tenant is not refused, that afterwards everything is as before and the ledger and the meter agree. The figures
of goodput and latency are for a machine that has nothing else to do: the full form asserts them, too. The bounds are
the same in both.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.systems import tenants
from tests.faults.overload import overload
from tests.faults.systems import FULL, running
from tests.support.results import record

SECONDS = 300.0 if FULL else 6.0
# The short form has only the one with a server; the control is on the other.
DIALECTS = [*(["sqlite"] if FULL else []), pytest.param("postgresql", marks=pytest.mark.postgres)]
COMMAND = "tests/faults/test_overload.py"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_overload_costs_those_who_cause_it(tmp_path: Path, dialect: str) -> None:
    with running(dialect, tmp_path / "data") as system, tenants(system.up, 3) as (quiet, *noisy):
        found = overload(system.up, noisy, quiet, seconds=SECONDS)
    print(found.figure())
    record("Overload costs those who cause it", COMMAND, f"{dialect}: {found.figure()}")
    assert not found.broken
    assert not FULL or not found.missed


@pytest.mark.full
def test_without_admission_control_everybody_waits(tmp_path: Path) -> None:
    with running("sqlite", tmp_path / "data", control="no admission") as system, tenants(system.up, 3) as owners:
        quiet, *noisy = owners
        found = overload(system.up, noisy, quiet, seconds=min(SECONDS, 20.0))
    print(found.figure(), found.broken, found.missed)
    assert "nobody was refused: the load waits somewhere" in found.broken
    assert any("p99" in figure for figure in found.missed)
    record("Overload costs those who cause it, control: no admission", COMMAND, f"sqlite: {found.figure()}")
