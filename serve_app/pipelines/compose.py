"""Pixels around the model: the crop it works on, and the paste back.

Only numpy and PIL; runs off the engine thread. Arrays of pixels are (H, W, 3) or (H, W), uint8.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve_app import errors
from serve_app.images import codec
from serve_app.pipelines.fill import filled
from serve_app.pipelines.seam import edge_weight, tone_offset
from serve_app.types import Fill, GenerationSpec, Kind, Masking, MaskMode, Picture, PreparedImages

__all__ = [
    "Box",
    "Canvas",
    "Framing",
    "Pixels",
    "all_touched",
    "box_around",
    "crop_box",
    "encode",
    "enlarge",
    "near_box",
    "near_size",
    "open_canvas",
    "open_controls",
    "open_ip_picture",
    "paste",
    "resized",
    "seam_px",
    "touched_cells",
]

Pixels = NDArray[np.uint8]
_CELL_PX = 8  # of most autoencoders
Box = tuple[int, int, int, int]  # left, top, right, bottom; the latter two exclusive, pixels


@dataclass(frozen=True, slots=True)
class Canvas:
    """The input pictures of a job, and the part of the frame that the model works on.

    painted: height and width that the model works at, pixels; none: those of the box.
    start: what it begins with in place of the init picture; RGB, as it sees it.
    """

    init: Image.Image
    mask: Image.Image | None
    box: Box
    painted: tuple[int, int] | None = None
    start: Image.Image | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that the model works at, pixels."""
        left, top, right, bottom = self.box
        return self.painted or (bottom - top, right - left)

    @property
    def is_soft(self) -> bool:
        """Whether the mask says how much, not only where."""
        return self.mask is not None and any(self.mask.histogram()[1:255])

    def seen(self) -> Image.Image:
        """Cut out what the model begins with, RGB."""
        if self.start is not None:
            return self.start
        return _scaled(self.init.crop(self.box), self.size, Image.Resampling.LANCZOS)

    def shades(self) -> Image.Image | None:
        """Cut out the part of the mask that the model paints by."""
        if self.mask is None:
            return None
        return _scaled(self.mask.crop(self.box), self.size, Image.Resampling.NEAREST)

    def with_fill(self, fill: Fill, seed: int) -> Self:
        """Fill the white of the mask before anything is painted."""
        shades = self.shades()
        if fill is Fill.ORIGINAL or shades is None:
            return self
        return replace(self, start=filled(self.seen(), shades, fill, seed))


def _scaled(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    sides = size[::-1]
    return image if image.size == sides else image.resize(sides, resample)


@dataclass(frozen=True, slots=True)
class Framing:
    """How much of a picture a model gets to see around a mask.

    native_px: least side, below which it paints badly. multiple_px: sides are multiples of it.
    padding_px: context around the mask. max_zoom: by which only the masked part may be enlarged.
    """

    native_px: int
    padding_px: int
    multiple_px: int = 8
    max_zoom: float = 8.0


def open_canvas(
    spec: GenerationSpec, images: PreparedImages | None, framing: Framing
) -> Canvas | None:
    """Decode a job's pictures and choose the box; None for text2img.

    Raises:
        errors.InvalidRequest: a picture that the kind needs is missing or has another size.
    """
    if spec.kind is Kind.TEXT2IMG:
        return None
    if images is None or images.init is None:
        raise errors.InvalidRequest("init_image", "The init_image field is required.")
    init = _decode(images.init, spec, "init_image").convert("RGB")
    frame = (0, 0, spec.width, spec.height)
    if spec.kind is Kind.IMG2IMG:
        return Canvas(init, None, frame)
    if images.mask is None:
        raise errors.InvalidRequest("mask_image", "The mask_image field is required.")
    mask = _decode(images.mask, spec, "mask_image").convert("L")
    if spec.outpaint is None:  # what is new begins whole, and its overlap fades
        mask = _faded(mask, spec.masking)
    return _framed(Canvas(init, mask, frame), spec, framing)


def _framed(whole: Canvas, spec: GenerationSpec, framing: Framing) -> Canvas:
    """Choose the part of the frame for the model, and how large it sees that."""
    if spec.full_frame or whole.mask is None:
        return whole
    if spec.padding_px is not None:
        framing = replace(framing, padding_px=spec.padding_px)
    near = near_box(whole.mask, framing) if spec.only_masked else None
    if near is not None:
        return replace(whole, box=near, painted=near_size(near, framing))
    return replace(whole, box=crop_box(whole.mask, framing.native_px, framing.padding_px))


def _faded(mask: Image.Image, masking: Masking) -> Image.Image:
    """Weaken the shades behind the edge; a hard mask fades in only when it is pasted."""
    if not masking.blur_px or masking.mode is MaskMode.HARD:
        return mask
    weight = edge_weight(all_touched(mask), masking.blur_px)
    shades = np.asarray(mask) * weight
    return Image.fromarray(np.rint(np.maximum(shades, np.sign(shades))).astype(np.uint8))


def seam_px(masking: Masking, default_px: int) -> int:
    """Return over how many pixels a result is blended in behind the edge of its mask."""
    if masking.blur_px is None or (masking.blur_px and masking.mode is not MaskMode.HARD):
        return default_px
    return masking.blur_px


def open_ip_picture(spec: GenerationSpec, images: PreparedImages | None) -> Image.Image | None:
    """Decode the picture for a job's IP adapter; None where it names none.

    Raises:
        errors.InvalidRequest: there is no picture.
    """
    if spec.ip_adapter is None:
        return None
    if images is None or images.ip_adapter is None:
        text = "The ip_adapter_image field is required."
        raise errors.InvalidRequest("ip_adapter_image", text)
    return _read(images.ip_adapter, "ip_adapter_image").convert("RGB")


def open_controls(
    spec: GenerationSpec, images: PreparedImages | None
) -> tuple[Image.Image | None, ...]:
    """Decode the pictures for the ControlNets that act; None: made of init and mask.

    Raises:
        errors.InvalidRequest: there are none, or not the mask that one is made of.
    """
    pictures = () if images is None else images.controls
    if len(pictures) != len(spec.controlnets):
        raise errors.InvalidRequest("control_image", "The control_image field is required.")
    return tuple(
        _open_control(spec, picture)
        for use, picture in zip(spec.controlnets, pictures, strict=True)
        if use.scale
    )


def _open_control(spec: GenerationSpec, picture: Picture | None) -> Image.Image | None:
    if picture is not None:
        return _decode(picture, spec, "control_image").convert("RGB")
    if spec.kind is not Kind.INPAINT:
        raise errors.InvalidRequest("mask_image", "The mask_image field is required.")
    return None


def _decode(picture: Picture, spec: GenerationSpec, field: str) -> Image.Image:
    image = _read(picture, field)
    if image.size != (spec.width, spec.height):
        raise errors.InvalidImage(field, "The picture does not have the size asked for.")
    return image


def _read(picture: Picture, field: str) -> Image.Image:
    try:
        return codec.to_image(picture)
    except (OSError, ValueError) as exc:
        raise errors.InvalidImage(field, "The picture could not be read.") from exc


def touched_cells(mask: Image.Image, cell_px: int) -> Image.Image:
    """Whiten the latent cells that a mask touches: the part that a model has to paint for it.

    Of a soft mask a cell takes the lightest shade in it. Pipelines look at one pixel of each cell,
    so that of thin lines they would see dots or nothing.
    """
    width, height = mask.size
    rows, columns = height // cell_px, width // cell_px
    blocks = np.asarray(mask).reshape(rows, cell_px, columns, cell_px)
    return Image.fromarray(blocks.max((1, 3))).resize(mask.size, Image.Resampling.NEAREST)


def all_touched(mask: Image.Image) -> Image.Image:
    """Whiten all that is not black: where anything may change."""
    return mask.point([0] + [255] * 255)


def crop_box(mask: Image.Image, native_px: int, padding_px: int) -> Box:
    """Choose the part of the frame around the white of a mask, at the picture's own scale.

    The sides are at least `native_px`, below which a model paints badly, and multiples of 64, so
    that crops of different masks have few different sizes and can share forwards. Whatever the
    padding, what the seam needs beside the mask is in it.
    """
    white = mask.getbbox()
    if white is None:
        white = (0, 0, 1, 1)  # nothing to repaint; the smallest crop will do
    return box_around(white, mask.size, native_px, padding_px)


def box_around(white: Box, frame: tuple[int, int], native_px: int, padding_px: int) -> Box:
    """Choose the part of a frame of this width and height around a box, as `crop_box` does."""
    width, height = frame
    padding_px = max(padding_px, _CELL_PX)
    left, right = _span(white[0], white[2], width, native_px, padding_px)
    top, bottom = _span(white[1], white[3], height, native_px, padding_px)
    return left, top, right, bottom


def _span(start: int, stop: int, side: int, native_px: int, padding_px: int) -> tuple[int, int]:
    """Widen start:stop on one axis; centred, moved inward at the frame's edge."""
    needed = max(stop - start + 2 * padding_px, native_px)
    length = min(side, -(-needed // 64) * 64)
    first = (start + stop - length) // 2 // _CELL_PX * _CELL_PX  # on the grid of latent cells
    first = min(max(first, 0), (side - length) // _CELL_PX * _CELL_PX)
    return first, first + length


def near_box(mask: Image.Image, framing: Framing) -> Box | None:
    """Choose a square around the white of a mask that is smaller than the native size, if any.

    Squares of any size are painted at one size, so that they can share forwards. They are cut off
    where the frame is narrower.
    """
    white = mask.getbbox()
    if white is None:
        return None
    longest = max(white[2] - white[0], white[3] - white[1])
    side = longest + 2 * max(framing.padding_px, _CELL_PX)
    side = max(side, math.ceil(framing.native_px / framing.max_zoom))
    if side >= framing.native_px:
        return None
    (left, right), (top, bottom) = (
        _centred(white[axis], white[axis + 2], side, mask.size[axis]) for axis in (0, 1)
    )
    return left, top, right, bottom


def near_size(box: Box, framing: Framing) -> tuple[int, int]:
    """Return height and width to paint a small box at, pixels: the longer side is the native."""
    height, width = box[3] - box[1], box[2] - box[0]
    scale, multiple = framing.native_px / max(height, width), framing.multiple_px
    return (
        max(1, round(height * scale / multiple)) * multiple,
        max(1, round(width * scale / multiple)) * multiple,
    )


def _centred(start: int, stop: int, length: int, side: int) -> tuple[int, int]:
    length = min(length, side)
    first = min(max((start + stop - length) // 2, 0), side - length)
    return first, first + length


def paste(
    result: Pixels, canvas: Canvas | None, fade_px: int, *, match_tone: bool = False
) -> Pixels:
    """Put what the model made into the frame; without a mask the result is the frame.

    result: the box's pixels, as large as the model saw them. Where the mask is black the frame
    stays exactly as it was. Within `fade_px` of the black the two are blended, so that the edge
    does not show; with `match_tone` the result is shifted to the tone of the frame beside the mask
    first.
    """
    if canvas is None or canvas.mask is None:
        return result
    frame = np.array(canvas.init)
    left, top, right, bottom = canvas.box
    mask = canvas.mask.crop(canvas.box)
    if canvas.painted is not None:
        size = (right - left, bottom - top)
        result = np.asarray(Image.fromarray(result).resize(size, Image.Resampling.LANCZOS))
    before, after = frame[top:bottom, left:right].astype(np.float32), result.astype(np.float32)
    if match_tone:
        after = np.clip(after + tone_offset(before, after, mask), 0, 255)
    mixed = before + edge_weight(all_touched(mask), fade_px)[..., None] * (after - before)
    frame[top:bottom, left:right] = np.rint(mixed).astype(np.uint8)
    return frame


def enlarge(pixels: Pixels, factor: int) -> Pixels:
    """Resample a finished picture to `factor` times its sides; adds no detail."""
    return resized(pixels, pixels.shape[0] * factor, pixels.shape[1] * factor)


def resized(pixels: Pixels, height: int, width: int) -> Pixels:
    """Resample a picture to another size by Lanczos' filter."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


def encode(pixels: Pixels) -> Picture:
    """Encode as PNG."""
    return codec.encode(Image.fromarray(pixels))
