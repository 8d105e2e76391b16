"""The alembic environment of the job database; `serve_app.jobs.migrate` runs it."""
