"""What is asked every few seconds costs as much as there are unfinished runs, however many have ended."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from kgents.agents import runs
from kgents.workers import lost_runs

QUESTIONS: dict[str, Callable[[Connection], Any]] = {
    "orphans": lambda connection: runs.orphans(connection, 1, 10),
    "runs of a process": lambda connection: runs.held(connection, "proc_1"),
    "queued runs": lambda connection: lost_runs.handed_over(connection, 1),
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_the_index_of_unfinished_runs_is_used(sqlite_template: Path, question: Callable[[Connection], Any]) -> None:
    engine = sa.create_engine(f"sqlite:///{sqlite_template}")
    asked: list[str] = []
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_trace_callback(asked.append)
        question(connection)
        driver.set_trace_callback(None)
        statements = [statement for statement in asked if "FROM runs" in statement]
        plans = [row[3] for statement in statements for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}")]
    engine.dispose()
    assert any("ix_runs_unfinished" in plan for plan in plans), plans
    assert not any(plan.startswith("SCAN runs") and "ix_runs_unfinished" not in plan for plan in plans), plans
