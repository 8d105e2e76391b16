"""Pixels around the model: the crop it works on, and the paste back.

Only numpy and PIL; runs off the engine thread. Arrays of pixels are (H, W, 3) or (H, W), uint8.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve_app import errors
from serve_app.images import codec
from serve_app.pipelines.seam import edge_weight, tone_offset
from serve_app.types import GenerationSpec, Kind, Picture, PreparedImages

__all__ = [
    "Box",
    "Canvas",
    "Pixels",
    "crop_box",
    "encode",
    "enlarge",
    "open_canvas",
    "open_controls",
    "open_ip_picture",
    "paste",
    "resized",
    "touched_cells",
]

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, right, bottom; the latter two exclusive, pixels


@dataclass(frozen=True, slots=True)
class Canvas:
    """The input pictures of a job, and the part of the frame that the model works on."""

    init: Image.Image
    mask: Image.Image | None
    box: Box

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the box, pixels."""
        left, top, right, bottom = self.box
        return bottom - top, right - left


def open_canvas(
    spec: GenerationSpec, images: PreparedImages | None, native_px: int, padding_px: int
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
    box = frame if spec.full_frame else crop_box(mask, native_px, padding_px)
    return Canvas(init, mask, box)


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

    Pipelines look at one pixel of each cell, so that of thin lines they would see dots or nothing.
    """
    width, height = mask.size
    rows, columns = height // cell_px, width // cell_px
    blocks = np.asarray(mask).reshape(rows, cell_px, columns, cell_px)
    return Image.fromarray(blocks.max((1, 3))).resize(mask.size, Image.Resampling.NEAREST)


def crop_box(mask: Image.Image, native_px: int, padding_px: int) -> Box:
    """Choose the part of the frame around the white of a mask, at the picture's own scale.

    The sides are at least `native_px`, below which a model paints badly, and multiples of 64, so
    that crops of different masks have few different sizes and can share forwards.
    """
    white = mask.getbbox()
    if white is None:
        white = (0, 0, 1, 1)  # nothing to repaint; the smallest crop will do
    width, height = mask.size
    left, right = _span(white[0], white[2], width, native_px, padding_px)
    top, bottom = _span(white[1], white[3], height, native_px, padding_px)
    return left, top, right, bottom


def _span(start: int, stop: int, side: int, native_px: int, padding_px: int) -> tuple[int, int]:
    """Widen start:stop on one axis; centred, moved inward at the frame's edge."""
    needed = max(stop - start + 2 * padding_px, native_px)
    length = min(side, -(-needed // 64) * 64)
    first = (start + stop - length) // 2 // 8 * 8  # on the grid of latent cells
    first = min(max(first, 0), (side - length) // 8 * 8)
    return first, first + length


def paste(
    result: Pixels, canvas: Canvas | None, seam_px: int, *, match_tone: bool = False
) -> Pixels:
    """Put what the model made into the frame; without a mask the result is the frame.

    result: the box's pixels. Where the mask is black the frame stays exactly as it was. Within
    `seam_px` of the black the two are blended, so that the edge does not show; with `match_tone`
    the result is shifted to the tone of the frame beside the mask first.
    """
    if canvas is None or canvas.mask is None:
        return result
    frame = np.array(canvas.init)
    left, top, right, bottom = canvas.box
    mask = canvas.mask.crop(canvas.box)
    before, after = frame[top:bottom, left:right].astype(np.float32), result.astype(np.float32)
    if match_tone:
        after = np.clip(after + tone_offset(before, after, mask), 0, 255)
    mixed = before + edge_weight(mask, seam_px)[..., None] * (after - before)
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
