"""Makes the pictures that a Generator wants from the files of a client."""

from collections.abc import Sequence

from PIL import Image

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.images import hint, reading
from serve_app.images.codec import encode
from serve_app.images.decode import decode, to_rgb
from serve_app.images.fit import fitted
from serve_app.images.mask import finished, to_binary
from serve_app.images.outpaint import grow, prepared_size
from serve_app.types import ControlType, Masking, MaskMode, Picture, PreparedImages, Size

__all__ = ["prepare", "prepare_controls", "prepare_ip_picture"]

# Pillow shrinks large pictures in two steps, the first one cheap; 3 leaves no visible trace.
_REDUCING_GAP = 3.0
# Image encoders enlarge the shorter side to theirs and look at the middle square. Of a strip, which
# would become a thousand times as large as the square, only so many squares are kept.
_MAX_ASPECT = 4


def prepare(
    init: bytes,
    mask: bytes | None,
    size: Size,
    config: ImagesConfig,
    *,
    is_alpha_mask: bool = False,
) -> PreparedImages:
    """Decode both files and bring them to the asked size. Blocks: run it in a thread.

    Both are stretched, as the hosted API does when the aspect differs, so they stay aligned.

    Args:
        init: file of the init picture.
        mask: file of the mask; `mask.to_shades` tells which part of it is repainted.
        size: asked for, or to be found by the shape of the init picture; how the mask is read.
        config: limits on the files.
        is_alpha_mask: the mask is one as OpenAI's, see `ImageSource`.

    Raises:
        errors.InvalidImage: a file cannot be read, is too large, or the mask repaints nothing, or
            does not have the size that it has to.
    """
    wanted_px = None if is_alpha_mask else _wanted_px(size)
    picture = to_rgb(decode("init_image", init, config, wanted_px))
    true_size = picture.size
    picture = _stretched(picture, _sides(size, picture.size))
    masking, made = size.masking, None
    if mask is not None:
        decoded = decode("mask_image", mask, config, wanted_px=None)
        if is_alpha_mask and decoded.size != true_size:
            message = "The mask_image must have the size of the init_image."
            raise errors.InvalidImage("mask_image", message)
        made = finished(decoded, picture.size, masking, is_alpha_mask=is_alpha_mask)
        if made.getbbox() is None:
            raise _nothing(masking, is_alpha_mask=is_alpha_mask)
    if size.outpaint is not None:
        # What is beside the new part is painted as whole as that, window by window.
        made = None if made is None else to_binary(made)
        is_hard = masking.mode is MaskMode.HARD
        picture, made = grow(picture, made, size.outpaint, is_hard=is_hard)
    return PreparedImages(init=encode(picture), mask=None if made is None else encode(made))


def _sides(size: Size, picture: tuple[int, int]) -> tuple[int, int]:
    """Return width and height that an init picture is brought to."""
    if size.outpaint is not None:
        return prepared_size(size.outpaint, picture)
    return fitted(size.fit, picture) if size.fit else (size.width, size.height)


def _wanted_px(size: Size) -> int | None:
    """Return the longest side that anything of the picture is needed at; None: its own."""
    if size.outpaint is not None:
        return None
    return size.fit.max_px if size.fit else max(size.height, size.width)


def _nothing(masking: Masking, *, is_alpha_mask: bool) -> errors.InvalidImage:
    if masking.expand_px < 0:
        message = "mask_expand leaves nothing of the mask_image to repaint."
    elif masking.invert:
        message = "The mask_image repaints nothing: with invert_mask that part must be black."
    else:
        part = "transparent or white" if is_alpha_mask else "white"
        message = f"The mask_image repaints nothing: the part to repaint must be {part}."
    return errors.InvalidImage("mask_image", message)


def prepare_ip_picture(data: bytes, config: ImagesConfig) -> Picture:
    """Decode the picture for an IP adapter; a large one is made smaller, a strip shorter. Blocks.

    Raises:
        errors.InvalidImage: the file cannot be read or is too large.
    """
    side = config.ip_adapter_side_px
    picture = to_rgb(decode("ip_adapter_image", data, config, side))
    picture = _middle(picture)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP)
    return encode(picture)


def prepare_controls(
    field: str,
    data: bytes,
    hints: Sequence[ControlType | None],
    size: Size,
    config: ImagesConfig,
) -> PreparedImages:
    """Make what each ControlNet sees of a file. Blocks: run it in a thread.

    Stretched to the size as init pictures are, so that both stay aligned.

    Args:
        field: of the request that has the file.
        data: the file.
        hints: what is made of it, one per ControlNet; `inpaint`: nothing, the painter does.
        size: of the init picture if there is one, else as `prepare` takes it.
        config: limits on the file.

    Raises:
        errors.InvalidImage: the file cannot be read or is too large.
    """
    wanted_px = size.fit.max_px if size.fit else max(size.height, size.width)
    picture = to_rgb(decode(field, data, config, wanted_px))
    sides = fitted(size.fit, picture.size) if size.fit else (size.width, size.height)
    picture = _stretched(picture, sides)
    with reading.watch.get()(field):
        made = {one: encode(hint.make(one, picture)) for one in set(hints)}
    controls = (None if one is ControlType.INPAINT else made[one] for one in hints)
    return PreparedImages(controls=tuple(controls))


def _stretched(picture: Image.Image, sides: tuple[int, int]) -> Image.Image:
    if picture.size == sides:
        return picture
    return picture.resize(sides, Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP)


def _middle(image: Image.Image) -> Image.Image:
    """Cut off the ends of a strip."""
    longest = _MAX_ASPECT * min(image.size)
    width, height = (min(side, longest) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
