"""The controls: a repository function that has lost its tenant filter is found on SQLite; on PostgreSQL row-level
security holds all the same, and without it the same fault is found there too.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.isolation.systems import running
from tests.isolation.test_prover import prove
from tests.support.results import record

FULL = bool(os.environ.get("KGENTS_FULL"))

AGENTS, TENANTS, USAGE = (f"kgents.{room}.repository" for room in ("agents", "tenants", "usage"))
READS = [f"{AGENTS}:run_by_id"]
if FULL:
    READS += [
        *(f"{AGENTS}:{name}" for name in ("agent_by", "list_agents", "agent_names", "session_by_id", "list_sessions")),
        f"{AGENTS}:list_runs",
        *(f"{TENANTS}:{name}" for name in ("key_by_id", "list_keys", "list_audit")),
        *(f"{USAGE}:{name}" for name in ("sums", "events_of")),
    ]


@pytest.mark.parametrize("fault", READS)
def test_a_missing_filter_is_found_on_sqlite(tmp_path: Path, fault: str) -> None:
    with running("sqlite", tmp_path / "data", plant=fault) as system:
        proof, _ = prove(system.up, 1, ("owner",))
    assert proof.violations
    record("Tenant isolation, control", "KGENTS_FULL=1 pytest tests/isolation/test_planted.py", f"{fault} found")


@pytest.mark.postgres
@pytest.mark.parametrize("fault", READS)
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
        proof, _ = prove(system.up, 1, ("owner",))
        assert proof.violations
    record(
        "Tenant isolation, row-level security", "KGENTS_FULL=1 pytest tests/isolation/test_planted.py", f"{fault} held"
    )
