"""What a replica of the private cluster of `dreamserve run` does before anything else.

Ray's processes listen where their node does. Only the server that Serve gives each replica, for
calls between deployments by gRPC, listens on all addresses (Ray 2.60, `Replica._on_initialized`).
"""

from grpc import aio
from ray.serve._private import replica

__all__ = ["bind_to_loopback"]

_bind = replica.add_port_to_grpc_server


def bind_to_loopback() -> None:
    """Make the replicas of this process listen on 127.0.0.1. Ray calls it in each worker."""
    replica.add_port_to_grpc_server = _bind_to_loopback


def _bind_to_loopback(server: aio.Server, address: str) -> int:
    port: int = _bind(server, f"127.0.0.1:{address.rpartition(':')[2]}")
    return port
