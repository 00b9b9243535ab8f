"""What Alembic runs migrations in: the connection that migrate.py opened, inside one transaction."""

from alembic import context

from kgents.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
