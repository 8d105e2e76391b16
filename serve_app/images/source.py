"""Tells the three ways in which a client can hand in a picture apart.

API page "Inpainting", 2023 to 2026: `init_image` and `mask_image` are URLs, base64 text or data
URIs. Base64 is read leniently, since clients wrap lines, drop the padding, or use the alphabet
for URLs.
"""

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from serve_app import errors

__all__ = ["parse"]

_URL = re.compile(r"https?:", re.IGNORECASE)
_DATA = re.compile(r"data:([^,]{0,256}),", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,31}:", re.IGNORECASE)
_WHITESPACE = b" \t\r\n\v\f"
_URL_ALPHABET = bytes.maketrans(b"-_", b"+/")


def parse(field: str, text: str, max_bytes: int) -> str | bytes:
    """Tell a URL from inline data.

    Args:
        field: request field, named in errors.
        text: what the client sent.
        max_bytes: limit on inline data, once decoded.

    Returns:
        A URL as text, not judged yet, or the bytes of a file, not read yet.

    Raises:
        errors.InvalidImage: the text is neither, or the data is too large.
    """
    text = text.strip()
    if not text:
        raise errors.InvalidImage(field, f"The {field} field is empty.")
    if _URL.match(text):
        return text
    if text[:5].lower() == "data:":
        return _from_data_uri(field, text, max_bytes)
    if _SCHEME.match(text):
        raise errors.InvalidImage(field, f"The {field} URL must start with http:// or https://.")
    return _from_base64(field, text, max_bytes)


def _from_data_uri(field: str, text: str, max_bytes: int) -> bytes:
    head = _DATA.match(text)
    if head is None or not head[1].lower().endswith(";base64"):
        raise errors.InvalidImage(field, f"The {field} data URI is not of the base64 kind.")
    return _from_base64(field, text[head.end() :], max_bytes)


def _from_base64(field: str, text: str, max_bytes: int) -> bytes:
    try:
        raw = text.encode("ascii")
        if b"%" in raw:  # a data URI may be percent-encoded
            raw = unquote_to_bytes(raw)
        raw = raw.translate(_URL_ALPHABET, _WHITESPACE).rstrip(b"=")
        # Sized before it is decoded: 4 characters make 3 bytes.
        if len(raw) * 3 // 4 > max_bytes:
            raise errors.InvalidImage(field, f"The {field} file is over {max_bytes} bytes.")
        data = base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error) as exc:
        message = f"The {field} field is neither an http(s) URL, a data URI nor base64."
        raise errors.InvalidImage(field, message) from exc
    if not data:
        raise errors.InvalidImage(field, f"The {field} field holds no data.")
    return data
