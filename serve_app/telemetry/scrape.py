"""Metrics pages of all nodes over HTTP, read into one `Overview`."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx2

from serve_app.telemetry import overview
from serve_app.telemetry.overview import Overview

__all__ = ["look"]

_TIMEOUT_S = 5.0
_THREADS = 16  # pages asked at a time


def look(pages: Sequence[str]) -> tuple[Overview, int]:
    """Read the pages; tell also how many did not answer."""
    with ThreadPoolExecutor(_THREADS) as scrapers:
        texts = list(scrapers.map(_scrape, pages))
    answers = [text for text in texts if text is not None]
    return overview.read(answers), len(texts) - len(answers)


def _scrape(page: str) -> str | None:
    """One metrics page; None when the node does not answer."""
    try:
        answer = httpx2.get(page, timeout=_TIMEOUT_S, trust_env=False)
        return answer.raise_for_status().text
    except httpx2.HTTPError:
        return None
