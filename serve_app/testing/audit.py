"""`MemoryAuditLog`: nothing was done; the stores in memory write no log."""

from serve_app.jobs.protocol import Deed

__all__ = ["MemoryAuditLog"]


class MemoryAuditLog:
    """Implements `jobs.protocol.AuditLog`; shows what was put into `known`, the latest first."""

    def __init__(self) -> None:
        self.known: list[Deed] = []

    async def deeds(self, limit: int, subject: str | None = None) -> list[Deed]:
        """List what was done; see the protocol."""
        return [deed for deed in self.known if subject in (None, deed.subject)][:limit]
