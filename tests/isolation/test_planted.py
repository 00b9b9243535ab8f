"""The controls: a function that has lost its tenant filter is found on SQLite (a write by what it changed); on
PostgreSQL row-level security holds it, and without that the same fault is found there too.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.isolation.prover import Operation
from tests.isolation.systems import System, running
from tests.isolation.test_prover import prove
from tests.support.results import record

FULL = bool(os.environ.get("KGENTS_FULL"))

AGENTS, TENANTS, USAGE, BILLING = (f"kgents.{room}.repository" for room in ("agents", "tenants", "usage", "billing"))
SUMS = "kgents.usage.sums"
READS = [f"{AGENTS}:run_by_id"]
if FULL:
    READS += [
        *(f"{AGENTS}:{name}" for name in ("agent_by", "list_agents", "agent_names", "session_by_id", "list_sessions")),
        f"{AGENTS}:list_runs",
        *(f"{TENANTS}:{name}" for name in ("key_by_id", "list_keys", "list_audit")),
        *(f"{USAGE}:events_of", f"{SUMS}:kept"),
        *(f"{BILLING}:{name}" for name in ("open_subscription", "invoice_by_id", "list_invoices")),
    ]


RUNS, LEDGER = "kgents.agents.runs", "kgents.agents.ledger_ops"
WRITES = {f"{RUNS}:request_cancel": "runs"}
"""By the fault, the part of the victims' view that it changes."""
if FULL:
    WRITES |= {
        f"{AGENTS}:agent_by,{AGENTS}:update_agent": "agents",
        f"{AGENTS}:agent_by,{AGENTS}:delete_agent": "agents",
        f"{AGENTS}:session_by_id,{AGENTS}:delete_session": "sessions",
        f"{AGENTS}:run_by_id,{AGENTS}:erase_run": "response",  # or the read alone: the run says whose it is
        f"{TENANTS}:key_by_id,{TENANTS}:end_key": "view",  # whose keys have ended
    }
LOOKUPS = ",".join([*(f"{USAGE}:{name}" for name in ("_QUOTAS", "_BALANCES", "_LOCKED_BALANCES")), f"{LEDGER}:_HOLD"])
COMMAND = "KGENTS_FULL=1 pytest tests/isolation/test_planted.py"


def named(fault: str) -> str:
    """A fault without colons, which the page of results takes for the end of what a figure is of."""
    return fault.replace(":", ".").replace(",", " and ")


def attack(system: System, fault: str) -> list[str]:
    """What is found of a fault, by an owner's key: of a write, that a victim's objects are changed."""
    if fault not in WRITES:
        return prove(system.up, 1, ("owner",))[0].violations
    proof, _ = prove(system.up, 1, ("owner",), only=changes_what_is_named)
    return [found for found in proof.violations if re.match(rf"{WRITES[fault]}\b.* of a victim changed", found)]


def changes_what_is_named(operation: Operation) -> bool:
    """Whether an operation may change the object that its path names."""
    return operation.method != "get" and any(slot.where == "path" for slot in operation.slots)


@pytest.mark.parametrize("fault", [*READS, *WRITES])
def test_a_missing_filter_is_found_on_sqlite(tmp_path: Path, fault: str) -> None:
    with running("sqlite", tmp_path / "data", plant=fault) as system:
        assert attack(system, fault)
    record("Tenant isolation, control", COMMAND, f"{named(fault)}: found")


if FULL:

    def test_bulk_lookups_do_not_rest_on_their_filters(tmp_path: Path) -> None:
        """Without them other tenants' rows are read, but whose each is, or which was asked for, is looked at again."""
        with running("sqlite", tmp_path / "data", plant=LOOKUPS) as system:
            proof, _ = prove(system.up, 1, ("owner",))
        assert not proof.violations, "\n".join(proof.violations)
        record("Tenant isolation, bulk lookups without their filters", COMMAND, f"SQLite: {proof.tries} tries: 0 leaks")


@pytest.mark.postgres
@pytest.mark.parametrize("fault", [*READS, *WRITES] if FULL else READS)
def test_row_level_security_holds_where_a_filter_is_missing(tmp_path: Path, fault: str) -> None:
    with running("postgresql", tmp_path / "data", plant=fault) as system:
        proof, _ = prove(system.up, 1, ("owner",))
        assert not proof.violations, "\n".join(proof.violations)
        assert system.postgres is not None
        tables = system.postgres.sql(["SELECT relname FROM pg_class WHERE relrowsecurity"], system.database)[0]
        assert tables
        system.postgres.sql(
            [f'ALTER TABLE "{table["relname"]}" DISABLE ROW LEVEL SECURITY' for table in tables], system.database
        )
        assert attack(system, fault)
    record("Tenant isolation, row-level security", COMMAND, f"{named(fault)}: held, and found without it")
