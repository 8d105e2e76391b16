"""The `dreamserve` command: a file per sub-command."""

from serve_app.cli.main import main

__all__ = ["main"]
