"""Every query names its tenant: SQLite has no row-level security, so the filter is what isolates tenants there."""

from __future__ import annotations

import textwrap

import pytest

from tests.architecture.source import modules
from tests.architecture.tenant_scope import Unscoped, unscoped_queries

# The queries that rightly look at every tenant's rows, and why.
ALLOWED = {
    ("tenants/repository.py", "credential"): "finds out whose a key is: before that there is no tenant",
    ("tenants/repository.py", "list_tenants"): "platform administration",
    ("tenants/repository.py", "tenant_by_name"): "platform administration: names are unique over all tenants",
    ("billing/repository.py", "first_start"): "the invoicer serves every tenant",
    ("billing/repository.py", "invoices_of"): "reconcile looks at every tenant's invoices",
    ("billing/repository.py", "open_subscriptions"): "a figure for operators",
    ("billing/repository.py", "without_invoice"): "the invoicer serves every tenant",
    ("billing/repository.py", "revenue"): "platform administration: a sum over all tenants",
    ("billing/repository.py", "payable"): "the collector serves every tenant",
    ("billing/repository.py", "uncollected"): "a figure for operators",
    ("billing/inbox.py", "waiting"): "events are the platform's; whose invoices they are about is asked at Stripe",
    ("billing/inbox.py", "backlog"): "a figure for operators",
    ("billing/inbox.py", "done"): "the inbox serves every tenant",
    ("billing/inbox.py", "forget"): "housekeeping over every tenant",
    ("store/outbox.py", "take"): "the relay serves every tenant",
    ("store/outbox.py", "delete"): "the relay serves every tenant",
    ("store/outbox.py", "backlog"): "a figure for operators",
    ("store/outbox.py", "waiting"): "reconcile looks at what is on its way for every tenant",
    ("store/outbox.py", "holds"): "the sweeper serves every tenant",
    ("store/changes.py", "poll"): "every process hears of every tenant's changes",
    ("store/changes.py", "prune"): "housekeeping over every tenant",
    ("workers/sweeper.py", "expire_keys"): "the sweeper serves every tenant",
    ("workers/lost_runs.py", "handed_over"): "the sweeper serves every tenant",
    ("workers/lost_runs.py", "send_again"): "the sweeper serves every tenant",
    ("usage/repository.py", "hold_balances"): "the limits are those of the balances' own tenants, which are named",
    ("usage/sums.py", "totals"): "a figure for operators",
    ("usage/sums.py", "_tenants"): "reconcile goes through every tenant",
    ("agents/runs.py", "orphans"): "the sweeper serves every tenant",
    ("agents/runs.py", "first_queued"): "a worker carries out every tenant's runs",
    ("agents/runs.py", "held"): "a process asks for its own runs, whosever they are",
}


def unscoped() -> list[Unscoped]:
    return [found for module, source in modules() for found in unscoped_queries(module, source)]


def test_every_query_names_its_tenant() -> None:
    left = [found for found in unscoped() if (found.module, found.function) not in ALLOWED]
    assert not left, "add a filter on c.tenant_id, or say in ALLOWED why there is none:\n" + "\n".join(map(str, left))


def test_every_exception_is_still_needed() -> None:
    assert set(ALLOWED) == set(ALLOWED) & {(found.module, found.function) for found in unscoped()}


def check(body: str) -> list[str]:
    source = "import sqlalchemy as sa\nfrom kgents.store.tables import agents, processes, runs\n" + textwrap.dedent(
        body
    )
    return [found.function for found in unscoped_queries("planted.py", source)]


PLANTED = {
    "select": """
        def planted(connection, run_id):
            return connection.execute(sa.select(runs).where(runs.c.run_id == run_id)).first()
        """,
    "update": """
        def planted(connection, run_id):
            connection.execute(sa.update(runs).where(runs.c.run_id == run_id).values(status="failed"))
        """,
    "delete": """
        def planted(connection, run_id):
            connection.execute(sa.delete(runs).where(runs.c.run_id == run_id))
        """,
    "a second statement": """
        def planted(connection, tenant_id, run_id):
            connection.execute(sa.delete(runs).where(runs.c.tenant_id == tenant_id, runs.c.run_id == run_id))
            connection.execute(sa.delete(agents))
        """,
    "a join is no filter": """
        def planted(connection, run_id):
            joined = sa.select(runs).join(agents, agents.c.tenant_id == runs.c.tenant_id)
            return connection.execute(joined).first()
        """,
    "a constant": """
        _RUN = sa.select(runs).where(runs.c.run_id == sa.bindparam("run_id"))

        def planted(connection, run_id):
            return connection.execute(_RUN, {"run_id": run_id}).first()
        """,
    "a constant made of another": """
        _RUN = sa.select(runs)
        _LOCKED = _RUN.with_for_update()

        def planted(connection):
            return connection.execute(_LOCKED).first()
        """,
    "a loop": """
        def planted(connection):
            for row in connection.execute(sa.select(runs)):
                yield row.tenant_id
        """,
    "what a scoped query found": """
        def planted(connection, tenant_id):
            run = connection.execute(sa.select(runs).where(runs.c.tenant_id == tenant_id)).one()
            return connection.execute(sa.select(agents).where(agents.c.agent_id == run.agent_id)).one()
        """,
    "a method": """
        class Repository:
            def planted(self, connection):
                return connection.execute(sa.select(runs)).all()
        """,
}

SCOPED = {
    "in the statement": """
        def scoped(connection, tenant_id):
            return connection.execute(sa.select(runs).where(runs.c.tenant_id == tenant_id)).all()
        """,
    "several tenants": """
        def scoped(connection, tenant_ids):
            return connection.execute(sa.select(runs).where(runs.c.tenant_id.in_(tenant_ids))).all()
        """,
    "a pair of columns": """
        def scoped(connection, pairs):
            return connection.execute(sa.select(runs).where(sa.tuple_(runs.c.tenant_id, runs.c.run_id).in_(pairs)))
        """,
    "a named condition": """
        def scoped(connection, tenant_id):
            mine = runs.c.tenant_id == tenant_id
            return connection.execute(sa.select(runs).where(mine)).all()
        """,
    "added later": """
        def scoped(connection, tenant_id):
            statement = sa.select(runs).order_by(runs.c.run_id)
            return connection.execute(statement.where(runs.c.tenant_id == tenant_id)).all()
        """,
    "a constant, where it is used": """
        _RUN = sa.select(runs).with_for_update()

        def scoped(connection, tenant_id):
            return connection.execute(_RUN.where(runs.c.tenant_id == tenant_id)).all()
        """,
    "a constant with a named condition": """
        _MINE = runs.c.tenant_id == sa.bindparam("tenant_id")
        _RUN = sa.select(runs).where(_MINE)

        def scoped(connection, tenant_id):
            return connection.execute(_RUN, {"tenant_id": tenant_id}).all()
        """,
    "an insert": """
        def scoped(connection, row):
            connection.execute(sa.insert(runs), row)
        """,
    "no tenant's rows": """
        def scoped(connection, now):
            connection.execute(sa.delete(processes).where(processes.c.heartbeat_at < now))
        """,
}


@pytest.mark.parametrize("body", PLANTED.values(), ids=PLANTED)
def test_catches_a_planted_violation(body: str) -> None:
    assert check(body) == ["planted"]


@pytest.mark.parametrize("body", SCOPED.values(), ids=SCOPED)
def test_accepts_a_scoped_query(body: str) -> None:
    assert check(body) == []
