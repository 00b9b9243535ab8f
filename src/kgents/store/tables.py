"""Every table. Each row carries a tenant id; times are microseconds since the epoch in UTC; JSON is kept as text.

JSON is text, not the database's own type, so that both databases keep exactly the same bytes (PostgreSQL's jsonb
refuses an escaped NUL and reorders keys).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

METERS = ("runs", "input_tokens", "output_tokens", "tool_calls")  # the order of usage.model.Amounts

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Where rows are small and many, SQLite keeps them in the tree of their key itself (`sqlite_with_rowid=False`): one tree
# less to write to for each.

# SQLite gives rowids only to a plain INTEGER primary key, which holds 64 bits there.
Sequence = BigInteger().with_variant(Integer, "sqlite")


def _partial(name: str, *columns: str, where: str) -> Index:
    """An index of some rows. Statements that are to use it must hold `where` in the same words: no database takes it
    from parameters.
    """
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


tenants = Table(
    "tenants",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("status", Text, nullable=False),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    CheckConstraint("status IN ('active', 'suspended', 'deleted')", name="status"),
)

quotas = Table(
    "quotas",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("meter", Text, nullable=False),
    Column("monthly_limit", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant_id", "meter"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    CheckConstraint("monthly_limit >= 0", name="monthly_limit"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("pepper_version", Integer, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("last_used_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("rotated_from", Text),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    Index(None, "tenant_id", "key_id"),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("audit_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object_type", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("source_ip", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index(None, "tenant_id", "audit_id"),
)

# A feed that every process polls, so that what it has cached of a key, tenant or agent is dropped in time.
cache_changes = Table(
    "cache_changes",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("tenant_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("ref", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

agents = Table(
    "agents",
    metadata,
    Column("agent_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    Index(None, "tenant_id", "agent_id"),
    Index(
        "uq_agents_tenant_id_name",
        "tenant_id",
        "name",
        unique=True,
        sqlite_where=text("deleted_at IS NULL"),
        postgresql_where=text("deleted_at IS NULL"),
    ),
)

agent_versions = Table(
    "agent_versions",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("definition", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("agent_id", "version"),
    ForeignKeyConstraint(["agent_id"], ["agents.agent_id"]),
)

sessions = Table(
    "sessions",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
    ForeignKeyConstraint(["agent_id"], ["agents.agent_id"]),
    Index(None, "tenant_id", "session_id"),
    Index(None, "tenant_id", "agent_id", "session_id"),
)

# One row a model message (a request or a response), in order; `message` is pydantic-ai's own JSON form, which
# keeps what a provider needs back (tool call ids, thinking signatures).
messages = Table(
    "messages",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("session_id", Text),
    Column("run_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("message", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("run_id", "position"),
    ForeignKeyConstraint(["run_id"], ["runs.run_id"]),
    Index(None, "session_id", "run_id"),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("agent_version", Integer, nullable=False),
    Column("session_id", Text),
    Column("previous_run_id", Text),
    Column("kind", Text, nullable=False),  # what rendered it: run, chat.completion, response
    Column("mode", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("input", Text, nullable=False),
    Column("output", Text),
    Column("error", Text),
    Column("attempt", Integer, nullable=False),
    Column("owner", Text),
    Column("cancel_requested_at", BigInteger),
    Column("period", Text, nullable=False),
    *(Column(f"{meter}_reserved", BigInteger, nullable=False) for meter in METERS),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("tool_calls", BigInteger, nullable=False),
    Column("last_event", BigInteger),
    Column("request_id", Text, nullable=False),
    Column("traceparent", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("cut_off", Text),  # what the step under way had used when its process gave the run back
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    CheckConstraint("mode IN ('wait', 'stream', 'background')", name="mode"),
    CheckConstraint("status IN ('queued', 'running', 'completed', 'failed', 'cancelled')", name="status"),
    Index(None, "tenant_id", "run_id"),
    _partial("ix_runs_session", "tenant_id", "session_id", "run_id", where="session_id IS NOT NULL"),
    _partial("ix_runs_not_completed", "tenant_id", "status", "run_id", where="status <> 'completed'"),
    _partial(
        "ix_runs_unfinished_session",
        "tenant_id",
        "session_id",
        where="session_id IS NOT NULL AND status IN ('queued', 'running')",
    ),
    _partial("ix_runs_unfinished", "status", "owner", "run_id", where="status IN ('queued', 'running')"),
    _partial("ix_runs_queued", "tenant_id", "run_id", where="status = 'queued'"),
)

# What a run has done so far, so that another worker can go on from there.
run_steps = Table(
    "run_steps",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("step", Integer, nullable=False),
    Column("message", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("run_id", "step"),
    ForeignKeyConstraint(["run_id"], ["runs.run_id"]),
)

# An event's id begins with its run's; compared byte by byte, those of a run are next to each other.
usage_events = Table(
    "usage_events",
    metadata,
    Column("event_id", Text().with_variant(Text(collation="C"), "postgresql"), primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("meter", Text, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("estimated", Integer, nullable=False),
    Column("occurred_at", BigInteger, nullable=False),
    CheckConstraint("quantity > 0", name="quantity"),
    Index(None, "tenant_id", "occurred_at", "event_id"),
    sqlite_with_rowid=False,
)

balances = Table(
    "balances",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("period", Text, nullable=False),
    *(Column(f"{meter}_used", BigInteger, nullable=False, server_default=text("0")) for meter in METERS),
    *(Column(f"{meter}_reserved", BigInteger, nullable=False, server_default=text("0")) for meter in METERS),
    PrimaryKeyConstraint("tenant_id", "period"),
    sqlite_with_rowid=False,
)

# What the events of a tenant's hour (its start) add up to, by agent and model: kept with them, in their transaction.
usage_hours = Table(
    "usage_hours",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("hour", BigInteger, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    *(Column(meter, BigInteger, nullable=False) for meter in METERS),
    PrimaryKeyConstraint("tenant_id", "hour", "agent_id", "model"),
    sqlite_with_rowid=False,
)

# What the platform sells. It is the platform's own tenant's, so that no customer sees what others are offered; never
# changed but for `archived_at`.
plans = Table(
    "plans",
    metadata,
    Column("plan_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("terms", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("archived_at", BigInteger),
    Index(
        "uq_plans_name",
        "name",
        unique=True,
        sqlite_where=text("archived_at IS NULL"),
        postgresql_where=text("archived_at IS NULL"),
    ),
)

# Who is on which plan, with its terms as they were taken. One is open for a tenant at most. No foreign key: what was
# charged stays when the tenant is erased.
subscriptions = Table(
    "subscriptions",
    metadata,
    Column("subscription_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("plan_id", Text, nullable=False),
    Column("terms", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Index(None, "tenant_id", "subscription_id"),
    Index(
        "uq_subscriptions_open",
        "tenant_id",
        unique=True,
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
)

# A subscription's month, once it is over. `lines` never changes. `stripe_id` is there once Stripe collects it.
invoices = Table(
    "invoices",
    metadata,
    Column("invoice_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("subscription_id", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("lines", Text, nullable=False),
    Column("total", BigInteger, nullable=False),  # of its lines
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("stripe_id", Text),
    Column("payment_url", Text),
    CheckConstraint("status IN ('open', 'paid', 'uncollectible', 'void')", name="status"),
    Index(None, "tenant_id", "invoice_id"),
    Index(None, "period", "invoice_id"),
    Index("uq_invoices_month", "subscription_id", "period", unique=True),
    _partial("ix_invoices_open", "invoice_id", where="status = 'open'"),
    ForeignKeyConstraint(["subscription_id"], ["subscriptions.subscription_id"]),
)

# Under which id Stripe knows a tenant. Kept with its invoices when it is erased.
stripe_customers = Table(
    "stripe_customers",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("customer_id", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

# What Stripe told by webhook, once for each event however often it was told: `stripe_id` is the invoice that it is of.
stripe_events = Table(
    "stripe_events",
    metadata,
    Column("event_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("stripe_id", Text, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("done_at", BigInteger),
    _partial("ix_stripe_events_waiting", "received_at", "event_id", where="done_at IS NULL"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("tenant_id", Text, nullable=False),
    Column("topic", Text, nullable=False),  # usage, run
    Column("message_id", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    _partial("ix_outbox_run", "seq", where="topic = 'run'"),
    sqlite_autoincrement=True,
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("run_id", Text),
    Column("status", Integer),
    Column("body", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant_id", "key"),
    Index(None, "expires_at"),
)

# Who is alive: a run whose owner is no longer here is taken over. This table and the next are no tenant's.
processes = Table(
    "processes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("instance", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("heartbeat_at", BigInteger, nullable=False),
)

# One row: the oldest revision whose kgents works with these tables. A migration that older ones can't live with raises
# it.
schema_support = Table("schema_support", metadata, Column("oldest", Text, primary_key=True))

__all__ = [
    "METERS",
    "agent_versions",
    "agents",
    "api_keys",
    "audit_log",
    "balances",
    "cache_changes",
    "idempotency_keys",
    "invoices",
    "messages",
    "metadata",
    "outbox",
    "plans",
    "processes",
    "quotas",
    "run_steps",
    "runs",
    "schema_support",
    "sessions",
    "subscriptions",
    "tenants",
    "usage_events",
    "usage_hours",
]
