"""All tables; and on PostgreSQL the application's role, and row-level security forced on every tenant's table.

Until the first release this stays equal to tables.py: `python -m kgents.store.migrations.generate` writes what follows
`_create_tables` anew. docs/decisions/0001-row-level-security.md explains roles and policies.
"""

import sqlalchemy as sa
from alembic import op

from kgents.errors import Conflict

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TENANTS_TABLES = (
    "agent_versions",
    "agents",
    "api_keys",
    "audit_log",
    "balances",
    "cache_changes",
    "idempotency_keys",
    "invoices",
    "messages",
    "outbox",
    "plans",
    "quotas",
    "run_steps",
    "runs",
    "sessions",
    "stripe_customers",
    "stripe_events",
    "subscriptions",
    "tenants",
    "usage_events",
    "usage_hours",
)
APPEND_ONLY = ("audit_log", "usage_events")  # the application may neither change nor delete what it wrote

# In subqueries without a reference to the row, the setting is taken apart once a statement, not once a row.
MINE = (
    "tenant_id = ANY ((SELECT string_to_array(current_setting('kgents.tenants', true), ','))::text[])"
    " OR (SELECT current_setting('kgents.tenants', true) = '*')"
)
THE_KEY = "key_id = (SELECT current_setting('kgents.key_id', true))"


def upgrade() -> None:
    _create_tables()
    op.execute("INSERT INTO schema_support (oldest) VALUES ('0001')")
    if op.get_bind().dialect.name == "postgresql":
        _create_role()
        _grant()
        _secure()


def _create_role() -> None:
    if op.get_bind().scalar(sa.text("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'kgents_app')")):
        return
    if not op.get_bind().scalar(sa.text("SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user")):
        raise Conflict(
            "The role that migrates may not create the role kgents_app, as which the application works. Have a "
            "superuser run: CREATE ROLE kgents_app NOLOGIN; then migrate again. Nothing was changed.",
            code="database-role",
        )
    # Roles belong to the whole cluster: another database's migration may be making the same one right now.
    op.execute(
        """
        DO $$ BEGIN
            CREATE ROLE kgents_app NOLOGIN NOSUPERUSER NOBYPASSRLS;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END $$
        """
    )


def _grant() -> None:
    schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
    op.execute(f"GRANT USAGE ON SCHEMA {schema} TO kgents_app")
    op.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO kgents_app")
    op.execute("GRANT SELECT ON alembic_version, schema_support TO kgents_app")
    for table in (*TENANTS_TABLES, "processes"):
        rights = "SELECT, INSERT" if table in APPEND_ONLY else "SELECT, INSERT, UPDATE, DELETE"
        op.execute(f"GRANT {rights} ON {table} TO kgents_app")


def _secure() -> None:
    for table in TENANTS_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING ({MINE}) WITH CHECK ({MINE})")
    # Before a request is authenticated its tenant is not known: the key that it names, and its tenant, may be read.
    op.execute(f"CREATE POLICY authentication ON api_keys FOR SELECT USING ({THE_KEY})")
    owner = f"tenant_id = (SELECT api_keys.tenant_id FROM api_keys WHERE {THE_KEY})"  # noqa: S608 - a constant
    op.execute(f"CREATE POLICY authentication ON tenants FOR SELECT USING ({owner})")


def downgrade() -> None:
    raise RuntimeError("there is nothing before the first revision")


def _create_tables() -> None:
    op.create_table(
        "audit_log",
        sa.Column("audit_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object_type", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("source_ip", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("audit_id", name=op.f("pk_audit_log")),
    )
    op.create_index(op.f("ix_audit_log_tenant_id_audit_id"), "audit_log", ["tenant_id", "audit_id"], unique=False)
    op.create_table(
        "balances",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("runs_used", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("input_tokens_used", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("output_tokens_used", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("tool_calls_used", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("runs_reserved", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("input_tokens_reserved", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("output_tokens_reserved", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("tool_calls_reserved", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "period", name=op.f("pk_balances")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "cache_changes",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_cache_changes")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_expires_at"), "idempotency_keys", ["expires_at"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_outbox")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_outbox_run",
        "outbox",
        ["seq"],
        unique=False,
        sqlite_where=sa.text("topic = 'run'"),
        postgresql_where=sa.text("topic = 'run'"),
    )
    op.create_table(
        "plans",
        sa.Column("plan_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("terms", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("archived_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("plan_id", name=op.f("pk_plans")),
    )
    op.create_index(
        "uq_plans_name",
        "plans",
        ["name"],
        unique=True,
        sqlite_where=sa.text("archived_at IS NULL"),
        postgresql_where=sa.text("archived_at IS NULL"),
    )
    op.create_table(
        "processes",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("heartbeat_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_processes")),
        sa.UniqueConstraint("instance", name=op.f("uq_processes_instance")),
    )
    op.create_table(
        "schema_support",
        sa.Column("oldest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("oldest", name=op.f("pk_schema_support")),
    )
    op.create_table(
        "stripe_customers",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_stripe_customers")),
    )
    op.create_table(
        "stripe_events",
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("stripe_id", sa.Text(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("done_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_stripe_events")),
    )
    op.create_index(
        "ix_stripe_events_waiting",
        "stripe_events",
        ["received_at", "event_id"],
        unique=False,
        sqlite_where=sa.text("done_at IS NULL"),
        postgresql_where=sa.text("done_at IS NULL"),
    )
    op.create_table(
        "subscriptions",
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("plan_id", sa.Text(), nullable=False),
        sa.Column("terms", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("subscription_id", name=op.f("pk_subscriptions")),
    )
    op.create_index(
        op.f("ix_subscriptions_tenant_id_subscription_id"),
        "subscriptions",
        ["tenant_id", "subscription_id"],
        unique=False,
    )
    op.create_index(
        "uq_subscriptions_open",
        "subscriptions",
        ["tenant_id"],
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "tenants",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("requests_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("tokens_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("status IN ('active', 'suspended', 'deleted')", name=op.f("ck_tenants_status")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_tenants")),
        sa.UniqueConstraint("name", name=op.f("uq_tenants_name")),
    )
    op.create_table(
        "usage_events",
        sa.Column("event_id", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("estimated", sa.Integer(), nullable=False),
        sa.Column("occurred_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_usage_events_quantity")),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_usage_events")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_usage_events_tenant_id_occurred_at_event_id"),
        "usage_events",
        ["tenant_id", "occurred_at", "event_id"],
        unique=False,
    )
    op.create_table(
        "usage_hours",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("runs", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("tool_calls", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "hour", "agent_id", "model", name=op.f("pk_usage_hours")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "agents",
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_agents_tenants")),
        sa.PrimaryKeyConstraint("agent_id", name=op.f("pk_agents")),
    )
    op.create_index(op.f("ix_agents_tenant_id_agent_id"), "agents", ["tenant_id", "agent_id"], unique=False)
    op.create_index(
        "uq_agents_tenant_id_name",
        "agents",
        ["tenant_id", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("pepper_version", sa.Integer(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("rotated_from", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_api_keys_tenants")),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_keys")),
    )
    op.create_index(op.f("ix_api_keys_tenant_id_key_id"), "api_keys", ["tenant_id", "key_id"], unique=False)
    op.create_table(
        "invoices",
        sa.Column("invoice_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("lines", sa.Text(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("stripe_id", sa.Text(), nullable=True),
        sa.Column("payment_url", sa.Text(), nullable=True),
        sa.CheckConstraint("status IN ('open', 'paid', 'uncollectible', 'void')", name=op.f("ck_invoices_status")),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.subscription_id"], name=op.f("fk_invoices_subscriptions")
        ),
        sa.PrimaryKeyConstraint("invoice_id", name=op.f("pk_invoices")),
    )
    op.create_index(
        "ix_invoices_open",
        "invoices",
        ["invoice_id"],
        unique=False,
        sqlite_where=sa.text("status = 'open'"),
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_index(op.f("ix_invoices_period_invoice_id"), "invoices", ["period", "invoice_id"], unique=False)
    op.create_index(op.f("ix_invoices_tenant_id_invoice_id"), "invoices", ["tenant_id", "invoice_id"], unique=False)
    op.create_index("uq_invoices_month", "invoices", ["subscription_id", "period"], unique=True)
    op.create_table(
        "quotas",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("monthly_limit", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("monthly_limit >= 0", name=op.f("ck_quotas_monthly_limit")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_quotas_tenants")),
        sa.PrimaryKeyConstraint("tenant_id", "meter", name=op.f("pk_quotas")),
    )
    op.create_table(
        "runs",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("agent_version", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("previous_run_id", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("input", sa.Text(), nullable=False),
        sa.Column("output", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("cancel_requested_at", sa.BigInteger(), nullable=True),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("runs_reserved", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens_reserved", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens_reserved", sa.BigInteger(), nullable=False),
        sa.Column("tool_calls_reserved", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("tool_calls", sa.BigInteger(), nullable=False),
        sa.Column("last_event", sa.BigInteger(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("cut_off", sa.Text(), nullable=True),
        sa.CheckConstraint("mode IN ('wait', 'stream', 'background')", name=op.f("ck_runs_mode")),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'completed', 'failed', 'cancelled')", name=op.f("ck_runs_status")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_runs_tenants")),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_runs")),
    )
    op.create_index(
        "ix_runs_not_completed",
        "runs",
        ["tenant_id", "status", "run_id"],
        unique=False,
        sqlite_where=sa.text("status <> 'completed'"),
        postgresql_where=sa.text("status <> 'completed'"),
    )
    op.create_index(
        "ix_runs_queued",
        "runs",
        ["tenant_id", "run_id"],
        unique=False,
        sqlite_where=sa.text("status = 'queued'"),
        postgresql_where=sa.text("status = 'queued'"),
    )
    op.create_index(
        "ix_runs_session",
        "runs",
        ["tenant_id", "session_id", "run_id"],
        unique=False,
        sqlite_where=sa.text("session_id IS NOT NULL"),
        postgresql_where=sa.text("session_id IS NOT NULL"),
    )
    op.create_index(op.f("ix_runs_tenant_id_run_id"), "runs", ["tenant_id", "run_id"], unique=False)
    op.create_index(
        "ix_runs_unfinished",
        "runs",
        ["status", "owner", "run_id"],
        unique=False,
        sqlite_where=sa.text("status IN ('queued', 'running')"),
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_index(
        "ix_runs_unfinished_session",
        "runs",
        ["tenant_id", "session_id"],
        unique=False,
        sqlite_where=sa.text("session_id IS NOT NULL AND status IN ('queued', 'running')"),
        postgresql_where=sa.text("session_id IS NOT NULL AND status IN ('queued', 'running')"),
    )
    op.create_table(
        "agent_versions",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.agent_id"], name=op.f("fk_agent_versions_agents")),
        sa.PrimaryKeyConstraint("agent_id", "version", name=op.f("pk_agent_versions")),
    )
    op.create_table(
        "messages",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_messages_runs")),
        sa.PrimaryKeyConstraint("run_id", "position", name=op.f("pk_messages")),
    )
    op.create_index(op.f("ix_messages_session_id_run_id"), "messages", ["session_id", "run_id"], unique=False)
    op.create_table(
        "run_steps",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_run_steps_runs")),
        sa.PrimaryKeyConstraint("run_id", "step", name=op.f("pk_run_steps")),
    )
    op.create_table(
        "sessions",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.agent_id"], name=op.f("fk_sessions_agents")),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_sessions")),
    )
    op.create_index(
        op.f("ix_sessions_tenant_id_agent_id_session_id"),
        "sessions",
        ["tenant_id", "agent_id", "session_id"],
        unique=False,
    )
    op.create_index(op.f("ix_sessions_tenant_id_session_id"), "sessions", ["tenant_id", "session_id"], unique=False)
