"""Names of files: made here, never taken from a client.

A result's name carries 122 random bits, so a link is as good as a password for what it shows. Names
are reserved when a job is accepted: a second run of the job writes the same files.
"""

import re
from uuid import uuid4

from serve_app.types import PictureFormat

__all__ = [
    "INPUTS",
    "MAX_FOLDERS",
    "RESULTS",
    "TEMP",
    "check",
    "is_key",
    "is_prefix",
    "is_result",
    "media_type",
    "prefixed",
    "reserve",
    "reserve_input",
]

RESULTS = "generations"
"""Folder of results that stay."""
TEMP = "temp"
"""Folder of results whose links end after `storage.temp_ttl_s`."""
INPUTS = "inputs"
"""Folder of inline input pictures, kept for the runs of their job; never shown to anybody."""

MAX_FOLDERS = 3
"""Folders that a prefix of a key's results may have."""

# The first character is no dot: no hidden file, no `..`, and the store's own files stay apart.
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_BETWEEN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_KEY = re.compile(f"{_PART}(/{_BETWEEN}){{0,{MAX_FOLDERS}}}/{_PART}")
_PREFIX = re.compile(f"{_BETWEEN}(/{_BETWEEN}){{0,{MAX_FOLDERS - 1}}}")
_MEDIA_TYPES = {
    ".png": "image/png",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".base64": "text/plain",
}


def reserve(
    samples: int,
    *,
    base64: bool = False,
    temp: bool = False,
    form: PictureFormat = PictureFormat.PNG,
) -> tuple[str, ...]:
    """Draw the keys of a job's results, `{folder}/{i}-{uuid}.png` as the hosted API has them.

    Source: the API's `future_links`, 2023 to 2025.
    """
    folder = TEMP if temp else RESULTS
    suffix = ".base64" if base64 else f".{form}"
    name = uuid4()
    return tuple(f"{folder}/{index}-{name}{suffix}" for index in range(samples))


def reserve_input() -> str:
    """Draw the key of an inline input picture."""
    return f"{INPUTS}/{uuid4()}"


def is_prefix(text: str) -> bool:
    """Whether results can be kept under this: one to three names of folders, with slashes."""
    return _PREFIX.fullmatch(text) is not None and ".." not in text


def prefixed(key: str, prefix: str) -> str:
    """Return the key of the same result under a prefix, inside the folder that it is in."""
    folder, _, name = key.partition("/")
    return f"{folder}/{prefix}/{name}"


def is_key(key: str) -> bool:
    """Whether the text can be a key of a store at all."""
    return _KEY.fullmatch(key) is not None


def check(key: str) -> tuple[str, str]:
    """Take a key apart into folders and name; one that is none is a slip of ours: ValueError."""
    if not is_key(key):
        raise ValueError(f"no key of an object store: {key!r}")
    folder, _, name = key.rpartition("/")
    return folder, name


def is_result(key: str) -> bool:
    """Whether the key may be shown to whoever knows it."""
    return is_key(key) and key.partition("/")[0] in (RESULTS, TEMP)


def media_type(key: str) -> str:
    """Media type of a result by its name."""
    for suffix, value in _MEDIA_TYPES.items():
        if key.endswith(suffix):
            return value
    return "application/octet-stream"
