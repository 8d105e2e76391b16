"""Distinguishes the ways in which a client can hand in a picture.

API page "Inpainting", 2023 to 2026: `init_image` and `mask_image` are URLs, base64 text or data
URIs. A form may also hold the file itself.
"""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor

from serve_app import errors
from serve_app.images import inline
from serve_app.images.inline import Inline, Writing

__all__ = ["InputPicture", "parse", "read"]

InputPicture = str | Inline  # as a client hands it in, not judged yet

_SHORT = 16 * 1024  # characters; reading them takes no longer than waking a thread
# Two, so that one client does not keep all others waiting; threads of asyncio have other work.
_READERS = ThreadPoolExecutor(2, thread_name_prefix="picture")
_URL = re.compile(r"https?:", re.IGNORECASE)
_SCHEME = re.compile(r"(?!data:)[a-z][a-z0-9+.-]{0,31}:", re.IGNORECASE)


def parse(field: str, picture: InputPicture, max_bytes: int) -> str | bytes:
    """Return the URL, or decode inline data to bytes. Blocks like `inline.read`.

    Args:
        field: request field, named in errors.
        picture: what the client sent.
        max_bytes: limit on inline data, once decoded.

    Returns:
        A URL as text, not judged yet, or the bytes of a file, not read yet.

    Raises:
        errors.InvalidImage: the text is neither, or the data is too large.
    """
    if isinstance(picture, Inline):
        return inline.read(field, picture, max_bytes)
    text = picture.strip()
    if not text:
        raise errors.InvalidImage(field, f"The {field} field is empty.")
    if _URL.match(text):
        return text
    if _SCHEME.match(text):
        raise errors.InvalidImage(field, f"The {field} URL must start with http:// or https://.")
    # What is not ASCII is no base64 either, which is said there.
    data = memoryview(text.encode("ascii", "replace"))
    return inline.read(field, Inline(data, Writing.TEXT), max_bytes)


async def read(field: str, picture: InputPicture, max_bytes: int) -> str | bytes:
    """Do as `parse` does, beside the event loop where it takes long."""
    if isinstance(picture, str) and len(picture) <= _SHORT:
        return parse(field, picture, max_bytes)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_READERS, parse, field, picture, max_bytes)
