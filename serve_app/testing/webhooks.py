"""`FakePoster`: receivers that answer as told, for tests."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from serve_app.net import NetFailure
from serve_app.webhooks.protocol import Reply

__all__ = ["FakePoster", "SentRequest"]


@dataclass(frozen=True, slots=True)
class SentRequest:
    """One request as the receiver saw it."""

    url: str
    content: bytes
    headers: dict[str, str]


class FakePoster:
    """Answers each URL with what `answers` holds for it, first come first used; then with 204."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Reply | NetFailure]] = defaultdict(list)
        self.sent: list[SentRequest] = []

    async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> Reply:
        """Record the request and answer; see the protocol."""
        self.sent.append(SentRequest(url, content, dict(headers)))
        answers = self.answers[url]
        answer = answers.pop(0) if answers else Reply(204)
        if isinstance(answer, NetFailure):
            raise answer
        return answer
