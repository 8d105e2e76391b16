"""What reading a file will cost, estimated from the file before anything is decoded.

Every scan of a JPEG goes over the whole picture again, some 8 ms at 32 megapixels, however few
bytes it has. Every chunk or segment takes Pillow some microseconds. The canvas of a WebP is made
when the file is opened. Frames after the first cost no more than their chunk: nobody unpacks them.
"""

import re
from collections.abc import Iterator

from serve_app import errors
from serve_app.config import ImagesConfig

__all__ = ["check", "check_size", "too_large"]

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# ITU-T T.81, B.1.1: FF, any number of times, and a code; the last FF is enough to find it, and
# takes linear time. FF 00 is a byte of pixel data; the codes left out stand alone, and sound files
# have thousands of restart markers (D0 to D7) in a scan.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
_START, _END, _SCAN = 0xD8, 0xD9, 0xDA


def check(field: str, data: bytes, config: ImagesConfig) -> None:
    """Refuse a file that says of itself that it is too dear; other formats pass.

    Raises:
        errors.InvalidImage: too many scans, chunks or segments, or too large a canvas.
    """
    num_scans = 0
    for num_parts, is_scan in enumerate(_parts(field, data, config), start=1):
        num_scans += is_scan
        if num_scans > config.max_scans:
            message = f"The {field} picture has more than {config.max_scans} scans."
            raise errors.InvalidImage(field, message)
        if num_parts > config.max_parts:
            message = f"The {field} file has more than {config.max_parts} parts."
            raise errors.InvalidImage(field, message)


def check_size(field: str, width: int, height: int, config: ImagesConfig) -> None:
    """Refuse a picture of too many pixels; raises `errors.InvalidImage`."""
    if max(width, height) > config.max_side_px or width * height > config.max_pixels:
        raise too_large(field, config)


def too_large(field: str, config: ImagesConfig) -> errors.InvalidImage:
    """Make the error for a picture of too many pixels."""
    message = (
        f"The {field} picture is too large: at most {config.max_pixels} pixels and "
        f"{config.max_side_px} pixels per side."
    )
    return errors.InvalidImage(field, message)


def _parts(field: str, data: bytes, config: ImagesConfig) -> Iterator[bool]:
    """Walk through the chunks or segments of a file; each says whether it begins a scan."""
    if data.startswith(_JPEG):
        return _jpeg_segments(data)
    if data.startswith(_PNG):
        return _png_chunks(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        check_size(field, *_webp_canvas(data), config)
        return _webp_chunks(data)
    return iter(())


def _jpeg_segments(data: bytes) -> Iterator[bool]:
    """Find what libjpeg finds: it skips whatever stands between a segment and the next marker."""
    at = 2
    while found := _MARKER.search(data, at):
        code, at = found[1][0], found.end()
        if code == _END:
            return
        yield code == _SCAN
        if code != _START:  # which stands alone
            at += int.from_bytes(data[at : at + 2], "big")


def _png_chunks(data: bytes) -> Iterator[bool]:
    """PNG (third edition), 5.3: length, type, data and checksum."""
    at = len(_PNG)
    while at < len(data):
        yield False
        at += 12 + int.from_bytes(data[at : at + 4], "big")


def _webp_chunks(data: bytes) -> Iterator[bool]:
    """RFC 9649, 2.3: type, length, and data that is padded to an even length."""
    at = 12
    while at < len(data):
        yield False
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """Read width and height, in pixels, off the first chunk (RFC 9649, 2.5 to 2.7; RFC 6386, 9.1).

    A file that ends before has a size of no harm here, and none for whoever opens it.
    """
    match data[12:16]:
        case b"VP8X":
            return (
                int.from_bytes(data[24:27], "little") + 1,
                int.from_bytes(data[27:30], "little") + 1,
            )
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case _:
            return (
                int.from_bytes(data[26:28], "little") & 0x3FFF,
                int.from_bytes(data[28:30], "little") & 0x3FFF,
            )
