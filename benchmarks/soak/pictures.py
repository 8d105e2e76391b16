"""Small files that are dear to decode."""

import base64
import io
import struct

from PIL import Image

__all__ = ["data_uri", "scans", "webp"]


def data_uri(form: str, data: bytes) -> str:
    """Write a file as clients send it inline."""
    return f"data:image/{form};base64," + base64.b64encode(data).decode("ascii")


def scans(number: int, width: int, height: int) -> bytes:
    """Make a progressive JPEG of any size whose last scan comes so many times more."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((16, 16)).convert("RGB").save(
        buffer, "JPEG", progressive=True
    )
    data = buffer.getvalue()
    frame = data.index(b"\xff\xc2")
    data = data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * number + data[-2:]


def webp(width: int, height: int) -> bytes:
    """Make a lossless WebP of any size that holds no pixels."""
    sides = struct.pack("<I", (width - 1) | (height - 1) << 14)
    picture = b"\x2f" + sides + bytes(3)
    body = b"WEBPVP8L" + struct.pack("<I", len(picture)) + picture
    return b"RIFF" + struct.pack("<I", len(body)) + body
