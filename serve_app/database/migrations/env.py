"""Run by alembic, never imported: migrates the connection that `database.migrate` opened."""

from alembic import context

from serve_app.database.schema import metadata

__all__: list[str] = []

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
