"""Logs and metrics: names, formats and redaction in one place."""
