"""The nodes of a running cluster, seen from outside: for the operator's commands."""

import ray

__all__ = ["join", "metrics_pages"]


def join(address: str) -> None:
    """Connect to a running cluster as one more driver, quietly.

    Raises:
        ConnectionError: there is none at this address, or on this machine for `auto`.
    """
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")


def metrics_pages() -> list[str]:
    """Addresses of the metrics pages of all living nodes; they change as nodes come and go."""
    return [
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        for node in ray.nodes()
        if node["Alive"]
    ]
