"""The alembic environment of the job database; `serve_app.database.migrate` runs it."""
