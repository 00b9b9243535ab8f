"""What is asked of runs and sessions costs as much as it finds, however many there are."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from kgents.agents import repository, runs
from kgents.agents.runs import Heartbeat
from kgents.store import outbox
from kgents.workers import lost_runs

QUESTIONS: dict[str, tuple[str, Callable[[Connection], Any]]] = {
    "orphans": ("ix_runs_unfinished", lambda connection: runs.orphans(connection, [Heartbeat("proc_1", 1)], 10)),
    "runs of a process": ("ix_runs_unfinished", lambda connection: runs.held(connection, "proc_1")),
    "queued runs": ("ix_runs_unfinished", lambda connection: lost_runs.handed_over(connection, 1)),
    "whose runs are queued": (
        "ix_runs_queued",
        lambda connection: runs.first_queued(connection, 10, after="ten_1", without=["ten_2"]),
    ),
    "messages of queued runs": ("ix_outbox_run", lambda connection: outbox.take(connection, "run", 10)),
    "a queued run's message": ("ix_outbox_run", lambda connection: outbox.holds(connection, "run", ["{}"])),
    "busy sessions": (
        "ix_runs_unfinished_session",
        lambda connection: repository.busy_sessions(connection, ["ten_1", "ten_2"], ["ses_1", "ses_2"]),
    ),
    "a session's runs": (
        "ix_runs_session",
        lambda connection: runs.list_(connection, "ten_1", "run_1", 10, session_id="ses_1"),
    ),
    "failed runs": (
        "ix_runs_not_completed",
        lambda connection: runs.list_(connection, "ten_1", "run_1", 10, status="failed"),
    ),
    "a tenant's runs": ("ix_runs_tenant_id_run_id", lambda connection: runs.list_(connection, "ten_1", "run_1", 10)),
    "an agent's sessions": (
        "ix_sessions_tenant_id_agent_id_session_id",
        lambda connection: repository.list_sessions(connection, "ten_1", "ses_1", 10, "agt_1"),
    ),
}


@pytest.mark.parametrize(("index", "question"), QUESTIONS.values(), ids=QUESTIONS)
def test_its_index_is_used(sqlite_template: Path, index: str, question: Callable[[Connection], Any]) -> None:
    engine = sa.create_engine(f"sqlite:///{sqlite_template}")
    asked: list[str] = []
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_trace_callback(asked.append)
        question(connection)
        driver.set_trace_callback(None)
        table = index.split("_")[1]
        statements = [statement for statement in asked if f"FROM {table}" in statement]
        plans = [row[3] for statement in statements for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}")]
    engine.dispose()
    searches = [plan.split() for plan in plans if f" {table} " in f"{plan} "]
    assert searches, plans
    assert all(index in search for search in searches), plans
