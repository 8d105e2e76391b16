"""What a job is: its graph, its driver, how long it takes, who waits for it. Knows no SQL."""

from serve_app.jobs.driver import Driver

__all__ = ["Driver"]
