"""Picture files written by code: the parts of PNG, JPEG and WebP, and files that mean harm."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

__all__ = ["DEAR", "HARMLESS", "HOSTILE", "SEEDS", "chunk", "file", "jpeg", "png", "scans"]

LARGE = (8192, 3906)  # all but 32 megapixels, which the default limits let pass


def file(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth=8, colour=2, interlaced=0) -> bytes:
    """A PNG file by hand: a header and the given chunks."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    body = b"".join([chunk(b"IHDR", header), *chunks, chunk(b"IEND")])
    return b"\x89PNG\r\n\x1a\n" + body


def rows(size: int) -> bytes:
    """Pixel data of a PNG: so many bytes, all zero."""
    return chunk(b"IDAT", zlib.compress(bytes(size), 9))


def segment(code: int, data: bytes = b"") -> bytes:
    """A segment of a JPEG."""
    return bytes((0xFF, code)) + struct.pack(">H", len(data) + 2) + data


def jpeg(*segments: bytes, mode: str = "RGB", **options) -> bytes:
    """A sound JPEG of 16 x 16 pixels with more segments at its head."""
    data = file(PHOTO.convert(mode), "JPEG", **options)
    return data[:2] + b"".join(segments) + data[2:]


def scans(number: int, width: int, height: int, **options) -> bytes:
    """A JPEG of any size whose last scan comes so many times more. Pixels are missing."""
    data = jpeg(**options)
    frame = next(data.index(mark) for mark in (b"\xff\xc2", b"\xff\xc0") if mark in data)
    data = data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * number + data[-2:]


def piece(kind: bytes, data: bytes) -> bytes:
    """A chunk of a WebP."""
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def riff(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def side(length: int) -> bytes:
    return struct.pack("<I", length - 1)[:3]


def webp(width: int, height: int, *chunks: bytes, flags: int = 0) -> bytes:
    """A WebP of any canvas; without more chunks it has no pixels."""
    return riff(piece(b"VP8X", struct.pack("<I", flags) + side(width) + side(height)), *chunks)


def animated(number: int, width: int, height: int) -> bytes:
    """A WebP of so many frames of 16 x 16 pixels."""
    still = file(PHOTO.convert("RGB"), "WEBP")[12:]
    frame = piece(b"ANMF", bytes(6) + side(16) + side(16) + bytes(4) + still)
    return webp(width, height, piece(b"ANIM", bytes(6)), *[frame] * number, flags=2)


def lossless(width: int, height: int) -> bytes:
    """The picture of a WebP, of any size and without pixels."""
    return piece(b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(3))


def tiff(*entries: tuple[int, int, int, int], next_offset: int = 0) -> bytes:
    """EXIF of one directory: tag, type, count and value of each entry."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\x00" + struct.pack("<IH", 8, len(entries))
    return head + packed + struct.pack("<I", next_offset)


def exif(data: bytes) -> bytes:
    return segment(0xE1, b"Exif\x00\x00" + data)


def _photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    return Image.fromarray(pixels)


PHOTO = _photo()
GRADIENT = Image.linear_gradient("L").resize((24, 16))
TURNED = Image.Exif()
TURNED[0x112] = 6
BOMB = zlib.compress(bytes(50_000_000), 9)
# Sound files of every kind, whole, cut short and changed at random.
SEEDS = {
    "png": file(PHOTO.convert("RGB")),
    "png_alpha": file(PHOTO),
    "png_grey_alpha": file(PHOTO.convert("LA")),
    "png_palette": file(PHOTO.convert("RGB").quantize(16)),
    "png_palette_clear": file(PHOTO.convert("RGB").quantize(16), transparency=bytes(range(16))),
    "png_grey_clear": file(GRADIENT, transparency=7),
    "png_bits": file(GRADIENT.convert("1")),
    "png_16_bits": file(Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 257)),
    "png_interlaced": png(4, 4, rows(1 * 4 + 1 * 4 + 2 * 7 + 2 * 7 + 2 * 13), interlaced=1),
    "png_animated": file(PHOTO, save_all=True, append_images=[GRADIENT.convert("RGBA")] * 3),
    "jpeg": jpeg(),
    "jpeg_progressive": jpeg(progressive=True),
    "jpeg_grey": jpeg(mode="L"),
    "jpeg_cmyk": jpeg(mode="CMYK"),
    "jpeg_restarts": jpeg(restart_marker_blocks=1),
    "jpeg_turned": jpeg(exif=TURNED),
    "jpeg_of_two": file(PHOTO.convert("RGB"), "MPO", save_all=True, append_images=[GRADIENT]),
    "webp": file(PHOTO.convert("RGB"), "WEBP"),
    "webp_alpha": file(PHOTO, "WEBP"),
    "webp_lossless": file(PHOTO, "WEBP", lossless=True),
    "webp_turned": file(PHOTO, "WEBP", exif=TURNED),
    "webp_animated": animated(3, 16, 16),
}
# No limit on what the file says of itself catches these: Pillow needs many seconds for each.
DEAR = {
    "jpeg_exif_in_pieces": jpeg(*[exif(bytes(194))] * 49_000),
    "jpeg_fill_bytes": jpeg(b"\xff" * 15_000_000),
}
# Odd, but pictures.
HARMLESS = {
    "png_large_and_white": png(*LARGE, rows(LARGE[1] * (LARGE[0] + 1)), colour=0),
    "png_too_many_rows": png(8, 8, chunk(b"IDAT", BOMB)),
    "png_40000_texts": png(8, 8, *[chunk(b"tEXt", b"k\x00v")] * 40_000, rows(8 * 25)),
    "png_40000_pieces": png(8, 8, *[chunk(b"IDAT")] * 40_000, rows(8 * 25)),
    "png_and_a_script": SEEDS["png"] + b"<script>alert(1)</script>",
    "jpeg_40000_comments": jpeg(*[segment(0xFE)] * 40_000),
    "jpeg_scans_in_its_exif": jpeg(exif(b"\xff\xda\x00\x02" * 500)),
    "jpeg_exif_that_is_its_own_next": jpeg(exif(tiff((0x110, 3, 1, 1), next_offset=8))),
    "jpeg_exif_within_itself": jpeg(exif(tiff((0x8769, 4, 1, 8), (0xA005, 4, 1, 8)))),
    "jpeg_exif_of_4_gigabytes": jpeg(exif(tiff((0x112, 2, 2**32 - 1, 8)))),
    "jpeg_exif_of_65535_tags": jpeg(exif(b"II*\x00\x08\x00\x00\x00\xff\xff" + bytes(60_000))),
    "jpeg_turned_by_a_word": jpeg(exif(tiff((0x112, 2, 4, 0x74666C)))),
    "webp_10000_frames": animated(10_000, 16, 16),
    "webp_small_frames_on_a_large_canvas": animated(2, *LARGE),
}
# No pictures, broken, too large or too dear.
HOSTILE = {
    "empty": b"",
    "text": b"hello",
    "html": b"<!doctype html><html><img src=x></html>",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "svg_xml": b"<?xml version='1.0'?><svg/>",
    "pdf": b"%PDF-1.4\n1 0 obj",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "mp4": b"\x00\x00\x00\x18ftypmp42" + bytes(100),
    "zip": b"PK\x03\x04" + bytes(100),
    "gif": file(GRADIENT, "GIF"),
    "bmp": file(GRADIENT, "BMP"),
    "tiff": file(GRADIENT, "TIFF"),
    "ico": file(PHOTO, "ICO"),
    "jpeg2000_head": b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(50),
    "gif_polyglot": b"GIF89a" + SEEDS["png"],
    "png_signature_only": b"\x89PNG\r\n\x1a\n",
    "png_no_pixels": png(8, 8),
    "png_zero_size": png(0, 0),
    "png_50000": png(50_000, 50_000),
    "png_2_to_31": png(2**31 - 1, 2**31 - 1),
    "png_wide": png(30_000, 10),
    "png_100_megapixels": png(8192, 8192 + 4096),
    "png_bad_depth": png(8, 8, depth=3),
    "png_bad_rows": png(8, 8, chunk(b"IDAT", b"no deflate stream")),
    "png_broken_check": SEEDS["png"][:29] + b"\x00\x01" + SEEDS["png"][31:],
    "png_wrong_check_of_a_text": png(8, 8, chunk(b"tEXt", b"k\x00v")[:-1] + b"\x00", rows(8 * 25)),
    "png_text_bomb": png(8, 8, chunk(b"zTXt", b"k\x00\x00" + BOMB)),
    "png_long_text_bomb": png(8, 8, chunk(b"iTXt", b"k\x00\x01\x00\x00\x00" + BOMB)),
    "png_profile_bomb": png(8, 8, chunk(b"iCCP", b"k\x00\x00" + BOMB)),
    "png_chunk_length": png(8, 8)[:33] + b"\xff\xff\xff\xffIDAT",
    "png_100000_texts": png(8, 8, *[chunk(b"tEXt", b"k\x00v")] * 100_000, rows(8 * 25)),
    "png_100000_frames": png(8, 8, rows(8 * 25), *[chunk(b"fcTL", bytes(26))] * 100_000),
    "jpeg_start_only": b"\xff\xd8\xff\xe0",
    "jpeg_zero_size": scans(0, 0, 0),
    "jpeg_of_65535": scans(0, 65_535, 65_535),
    "jpeg_1000_scans": scans(1000, *LARGE, progressive=True),
    "jpeg_1000_scans_in_sequence": scans(1000, *LARGE),
    "jpeg_100000_comments": jpeg(*[segment(0xFE)] * 100_000),
    "webp_head_only": b"RIFF\x00\x00\x00\x00WEBP",
    "webp_of_16384": webp(16_384, 16_384),
    "webp_of_16777216": webp(2**24, 2**24),
    "webp_of_46_bytes": webp(*LARGE, lossless(*LARGE)),
    "webp_lossy_of_16383": riff(piece(b"VP8 ", bytes(3) + b"\x9d\x01\x2a" + b"\xff\x3f\xff\x3f")),
    "webp_lossless_of_16384": riff(lossless(16_384, 16_384)),
    "webp_frame_beyond_its_canvas": animated(1, 8, 8),
    **{f"{name}_cut_short": data[: len(data) * 2 // 3] for name, data in SEEDS.items()},
}
