"""The corpus of hostile pictures, and sound ones changed at random, through the workers.

Whatever a file does, the parent gets a picture or the API's error, and keeps its memory.
"""

import asyncio
import random
from functools import partial
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from PIL import Image

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.images.codec import to_image
from serve_app.images.isolation import Isolation
from serve_app.images.prepare import prepare, prepare_ip_picture
from serve_app.images.reencode import reencode
from serve_app.types import Size
from tests.picture_files import DEAR, HARMLESS, HOSTILE, SEEDS, file

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

CONFIG = ImagesConfig(decode_timeout_s=30)  # on a loaded machine all but the dear ones end by far
RED = file(Image.new("RGB", (8, 8), "red"))
PER_SEED = 80
MIB = 1024**2


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def isolation():
    isolation = Isolation(CONFIG)
    yield isolation
    await isolation.aclose()


async def outcome(isolation, work) -> str:
    """Say what came of a picture: "made", or the error's own words."""
    try:
        await isolation.run(work)
    except errors.InvalidImage as exc:
        return exc.detail
    return "made"


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEDS | HARMLESS)
async def test_sound_picture_is_read(isolation, name):
    work = partial(prepare, (SEEDS | HARMLESS)[name], None, Size(height=8, width=8), CONFIG)
    assert await outcome(isolation, work) == "made"


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_picture_is_refused_by_name(isolation, name):
    for work in (
        partial(prepare, HOSTILE[name], None, Size(height=8, width=8), CONFIG),
        partial(prepare, RED, HOSTILE[name], Size(height=8, width=8), CONFIG),
        partial(prepare_ip_picture, HOSTILE[name], CONFIG),
        partial(reencode, "image", HOSTILE[name], CONFIG),
    ):
        assert "image" in (said := await outcome(isolation, work))
        assert "made" not in said
        assert "takes too much" not in said, "refused by what it says, not by a limit"


@pytest.mark.slow
@pytest.mark.parametrize("name", DEAR)
async def test_dear_picture_ends_by_the_limit_and_its_neighbour_does_not(name):
    isolation = Isolation(ImagesConfig(decode_timeout_s=2))
    dear = outcome(isolation, partial(prepare_ip_picture, DEAR[name], CONFIG))
    plain = isolation.run(partial(prepare_ip_picture, RED, CONFIG))
    said, picture = await asyncio.gather(dear, plain)
    await isolation.aclose()
    assert said == "The ip_adapter_image picture takes too much time or memory to read."
    assert to_image(picture).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("name", SEEDS)
async def test_changed_pictures_are_read_or_refused(isolation, name):
    draw = random.Random(name)
    works = [
        partial(reencode, "image", changed(SEEDS[name], draw), CONFIG) for _ in range(PER_SEED)
    ]
    before = psutil.Process().children()
    said = await asyncio.gather(*(outcome(isolation, work) for work in works))
    assert len(set(said)) > 1, "some changes break a file"
    assert all("image" in one or one == "made" for one in said)
    assert psutil.Process().children() == before, "none of them ended a worker"


async def test_pictures_take_no_memory_of_the_parent(isolation):
    names = ("png_large_and_white", "webp_small_frames_on_a_large_canvas")
    dear = [HARMLESS[name] for name in names] + [HOSTILE["webp_of_46_bytes"]]
    before = begin_peak()
    for data in dear:
        await outcome(isolation, partial(prepare, data, None, Size(height=8, width=8), CONFIG))
    assert peak() - before < 64 * MIB


def begin_peak() -> int:
    """Have the kernel forget this process's peak of memory; its size now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return psutil.Process().memory_info().rss


def peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def changed(data: bytes, draw: random.Random) -> bytes:
    """Change some bytes of a file, take some out, or repeat a part."""
    out = bytearray(data)
    for _ in range(draw.randrange(1, 6)):
        at = draw.randrange(len(out))
        match draw.randrange(5):
            case 0:
                out[at] ^= 1 << draw.randrange(8)
            case 1:
                out[at] = draw.choice((0, 1, 127, 128, 255))
            case 2:
                del out[at : at + draw.randrange(1, 9)]
            case 3:
                out[at:at] = out[at : at + draw.randrange(1, 65)]
            case _:
                out[at : at + 4] = draw.randbytes(4)
        if not out:
            return b""
    return bytes(out)
