"""`GuardedPoster`: webhooks through the same guarded client as picture downloads."""

from collections.abc import Mapping

from serve_app.net import GuardedClient
from serve_app.webhooks.protocol import Reply

__all__ = ["GuardedPoster"]


class GuardedPoster:
    """Implements `webhooks.protocol.Poster`; private and special addresses are refused."""

    def __init__(self, client: GuardedClient) -> None:
        self._client = client

    async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> Reply:
        """POST a body; see the protocol."""
        answer = await self._client.post(url, content, headers)
        return Reply(answer.status, answer.retry_after)
