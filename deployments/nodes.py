"""The nodes of a running cluster, seen from outside: for the operator's commands."""

import ray

__all__ = ["join", "metrics_pages"]


def join(address: str) -> None:
    """Connect to a running cluster as one more driver, quietly.

    Raises:
        ConnectionError: there is none at this address, or on this machine for `auto`, or it does
            not take our token.
    """
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as exc:  # Ray has no class in common for what can go wrong here
        reason = next(iter(str(exc).splitlines()), type(exc).__name__)
        text = f"no Ray cluster at {address!r} lets us in (RAY_AUTH_MODE, --config): {reason}"
        raise ConnectionError(text) from exc


def metrics_pages() -> list[str]:
    """Addresses of the metrics pages of all living nodes; they change as nodes come and go."""
    return [
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        for node in ray.nodes()
        if node["Alive"]
    ]
