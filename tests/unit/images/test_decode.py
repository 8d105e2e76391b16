"""Reading files: every mode that a format can have, orientation, alpha."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.images.decode import decode, to_rgb

CONFIG = ImagesConfig()


def file(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG file by hand: a header and the given chunks."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = b"".join([chunk(b"IHDR", header), *chunks, chunk(b"IEND", b"")])
    return b"\x89PNG\r\n\x1a\n" + body


def read(data: bytes, config: ImagesConfig = CONFIG, wanted_px: int | None = 512) -> Image.Image:
    return decode("init_image", data, config, wanted_px)


def gradient(mode: str = "RGB", width: int = 32, height: int = 16) -> Image.Image:
    ramp = np.linspace(0, 255, width * height).astype(np.uint8).reshape(height, width)
    return Image.merge("RGB", [Image.fromarray(ramp)] * 3).convert(mode)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_accepted_format_is_read(form):
    image = read(file(gradient(), form))
    assert (image.mode, image.size) == ("RGB", (32, 16))


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_only_the_first_frame_of_many_is_read(form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    data = file(frames[0], form, save_all=True, append_images=frames[1:], duration=10)
    assert to_rgb(read(data)).getpixel((4, 4))[0] > 200


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("1", "PNG"),
        ("L", "PNG"),
        ("P", "PNG"),
        ("RGB", "PNG"),
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("RGBA", "WEBP"),
    ],
)
def test_every_mode_becomes_rgb_of_about_the_same_look(mode, form):
    base = gradient().point(lambda value: 255 * (value > 127)) if mode == "1" else gradient()
    stored = base.quantize() if mode == "P" else base.convert(mode)
    shown = to_rgb(read(file(stored, form)))
    assert shown.mode == "RGB"
    difference = np.asarray(shown, dtype=int) - np.asarray(base, dtype=int)
    assert np.abs(difference).mean() < 6


def test_16_bit_grey_is_scaled_and_not_clipped():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    image = read(file(Image.fromarray(ramp)))
    assert image.mode == "L"
    assert np.abs(np.asarray(image, dtype=int).ravel() - np.arange(256)).max() <= 1


def test_16_bit_colour_is_scaled_and_not_clipped():
    rows = b"".join(b"\x00" + struct.pack(">HHH", 65535, 32768, 0) * 4 for _ in range(4))
    image = read(png(4, 4, chunk(b"IDAT", zlib.compress(rows)), depth=16))
    assert to_rgb(image).getpixel((0, 0)) == (255, 128, 0)


def test_transparent_init_is_laid_on_white():
    assert to_rgb(read(file(Image.new("RGBA", (8, 8), (255, 0, 0, 0))))).getpixel((0, 0)) == (
        (255,) * 3
    )
    half = to_rgb(read(file(Image.new("LA", (8, 8), (0, 128)))))
    assert half.getpixel((0, 0)) == (127,) * 3


def test_tall_transparent_init_is_laid_on_white_to_its_last_row():
    shown = to_rgb(read(file(Image.new("RGBA", (3, 700), (0, 0, 0, 0)))))
    assert shown.getcolors() == [(2100, (255, 255, 255))]


def test_tall_picture_is_mixed_with_white_by_its_alpha_everywhere():
    values = np.random.default_rng(3).integers(0, 256, (600, 5, 4), np.uint8)
    shown = np.asarray(to_rgb(Image.fromarray(values)), float)
    share = values[..., 3:] / 255
    assert np.abs(shown - (values[..., :3] * share + 255 * (1 - share))).max() <= 1


def test_file_may_have_as_many_bytes_as_the_limit():
    data = file(gradient(width=64, height=64))
    config = CONFIG.model_copy(update={"max_bytes": len(data)})
    assert read(data, config).size == (64, 64)
    config = CONFIG.model_copy(update={"max_bytes": len(data) - 1})
    with pytest.raises(errors.InvalidImage, match=f"over {len(data) - 1} bytes") as caught:
        read(data, config)
    assert caught.value.field == "init_image"


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_transparent_colour_of_a_picture_without_alpha_is_laid_on_white(mode):
    image = Image.new("RGB", (8, 8), "black").convert(mode)
    transparent = (0, 0, 0) if mode == "RGB" else 0
    index = image.getpixel((0, 0)) if mode == "P" else transparent
    assert to_rgb(read(file(image, transparency=index))).getpixel((0, 0)) == (255,) * 3


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, form):
    """The upright picture is 32 x 16 and red in its top left corner."""
    upright = Image.new("RGB", (32, 16), "blue")
    upright.paste("red", (0, 0, 16, 8))
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read(file(stored, form, exif=exif))
    assert image.size == (32, 16)
    red, _, blue = image.getpixel((4, 3))
    assert red > blue
    assert image.getpixel((28, 12))[2] > 200


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"garbage", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"Exif\0\0"])
def test_broken_exif_is_ignored(exif):
    assert read(file(gradient(), "JPEG", exif=exif)).size == (32, 16)


def test_orientation_out_of_range_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 77
    assert read(file(gradient(), "JPEG", exif=exif)).size == (32, 16)


def test_much_larger_jpeg_is_read_at_a_fraction_that_still_suffices():
    data = file(gradient(width=2048, height=1024), "JPEG")
    assert read(data, wanted_px=128).size == (512, 256)
    assert read(data, wanted_px=1024).size == (2048, 1024)
    assert read(data, wanted_px=None).size == (2048, 1024)


def test_metadata_is_not_needed_and_does_no_harm():
    notes = PngImagePlugin.PngInfo()
    notes.add_text("parameters", "a secret prompt")
    assert read(file(gradient(), pnginfo=notes, icc_profile=b"no profile")).size == (32, 16)


@pytest.mark.parametrize(("code", "raised"), [(-9, MemoryError), (-2, errors.InvalidImage)])
def test_memory_that_a_codec_lacks_is_not_the_pictures_fault(monkeypatch, code, raised):
    """Pillow makes an OSError of every code that a codec ends with."""
    image = file(gradient())

    class Codec:
        pulls_fd = False

        def __getattr__(self, _name):
            return lambda *_: None

        def decode(self, _data):
            return -1, code

    monkeypatch.setattr(Image, "_getdecoder", lambda *_: Codec())
    with pytest.raises(raised):
        read(image)


@pytest.mark.parametrize("where", ["open", "load"])
def test_memory_that_pillow_lacks_is_not_the_pictures_fault(monkeypatch, where):
    image = file(gradient())

    def fail(*_args, **_options):
        raise MemoryError

    if where == "open":
        monkeypatch.setattr(Image, "open", fail)
    else:
        monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(MemoryError):
        read(image)
