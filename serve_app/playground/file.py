"""`PageFile`: a file of `static/`, as it goes to browsers. There is no build step."""

import hashlib
from dataclasses import dataclass
from importlib import resources

__all__ = ["PageFile", "load"]

_MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "woff2": "font/woff2",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file with its media type; the tag changes with its bytes."""

    data: bytes
    media_type: str
    tag: str


def load() -> dict[str, PageFile]:
    """Read all files, by name."""
    files = resources.files(__package__).joinpath("static").iterdir()
    return {file.name: _page_file(file.name, file.read_bytes()) for file in files}


def _page_file(name: str, data: bytes) -> PageFile:
    media_type = _MEDIA_TYPES[name.rpartition(".")[2]]
    return PageFile(data, media_type, f'"{hashlib.sha256(data).hexdigest()[:32]}"')
