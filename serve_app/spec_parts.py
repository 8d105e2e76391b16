"""Parts of what a job asks for: masks, growth, add-ons and ControlNets.

`serve_app.types` has the rest and these too, under one roof for whoever imports them.
"""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ControlNetUse",
    "ControlType",
    "Fill",
    "Frozen",
    "IpAdapterUse",
    "LoraUse",
    "MaskMode",
    "Masking",
    "Outpaint",
]


class Frozen(BaseModel):
    """Base of the JSON-serialisable values: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MaskMode(StrEnum):
    """What greys of a mask mean."""

    HARD = "hard"  # nothing: split at half
    SOFT = "soft"  # how much a place is to change
    AUTO = "auto"  # as soft where they are areas, as hard where edges or compression made them


class Fill(StrEnum):
    """What stands where a picture is to be repainted, before the first step."""

    ORIGINAL = "original"  # what is there
    NOISE = "noise"  # the colours around it, in no order
    BLUR = "blur"  # the colours around it, spread inward
    TELEA = "telea"  # OpenCV's two: lines and shades carried on inward
    NS = "ns"


class Outpaint(Frozen):
    """How a picture grows, in one of two ways; sides are rounded up to multiples.

    By pixels on each side; `width` and `height` are then what the picture is stretched to first.
    Or, with an `anchor`, to a canvas of these, which a larger picture is shrunk to fit into.
    """

    left: int = Field(default=0, ge=0, description="pixels")
    top: int = Field(default=0, ge=0)
    right: int = Field(default=0, ge=0)
    bottom: int = Field(default=0, ge=0)
    anchor: tuple[float, float] | None = Field(
        default=None, description="shares of the new room that lie on the left and above"
    )
    width: int | None = Field(default=None, description="none: the picture's own")
    height: int | None = None
    overlap_px: int = Field(ge=0, description="of the old picture that blends into the new part")
    multiple_px: int = Field(ge=8, multiple_of=8, description="sides are multiples of it")
    max_side_px: int = Field(ge=8, description="greatest side of the result")
    max_area_px: int = Field(ge=1, description="most pixels of the result")


class Masking(Frozen):
    """How a client's mask is read, and what is made of it; pixels of the picture to paint."""

    mode: MaskMode = MaskMode.AUTO
    invert: bool = Field(default=False, description="black is repainted")
    expand_px: int = Field(default=0, description="grow what is repainted; below 0: shrink it")
    blur_px: int | None = Field(
        default=None, ge=0, description="fade in over so much inside the edge; none: the seam's"
    )


class LoraUse(Frozen):
    """One LoRA of the catalogue and how strongly it acts."""

    id: str
    strength: float


class IpAdapterUse(Frozen):
    """One IP adapter of the catalogue and how strongly its picture acts."""

    id: str
    scale: float


class ControlType(StrEnum):
    """What a ControlNet wants to see (API pages "ControlNet", 2023 to 2026)."""

    AESTHETIC = "aesthetic-controlnet"
    CANNY = "canny"
    DEPTH = "depth"
    HED = "hed"
    MLSD = "mlsd"
    NORMAL = "normal"
    OPENPOSE = "openpose"
    SCRIBBLE = "scribble"
    SEGMENTATION = "segmentation"
    INPAINT = "inpaint"
    SOFTEDGE = "softedge"
    LINEART = "lineart"
    SHUFFLE = "shuffle"
    TILE = "tile"
    FACE_DETECTOR = "face_detector"
    QRCODE = "qrcode"
    BLUR = "blur"
    POSE = "pose"
    GRAY = "gray"
    LOW_QUALITY = "low_quality"

    @property
    def can_be_made(self) -> bool:
        """Whether its control picture can be made of any picture, without a model of its own."""
        return self in _MADE_HERE

    @property
    def setting(self) -> str | None:
        """The setting of `hints` that names a model for its control picture, if there is one."""
        return _BY_MODEL.get(self)

    @property
    def is_drawn(self) -> bool:
        """Whether its control picture is another one than the picture it is made of."""
        return self in _DRAWN or self in _BY_MODEL


_BY_MODEL = {
    ControlType.DEPTH: "depth",
    ControlType.NORMAL: "normal",
    ControlType.SEGMENTATION: "segmentation",
    ControlType.OPENPOSE: "pose",
    ControlType.POSE: "pose",
    ControlType.HED: "softedge",
    ControlType.SOFTEDGE: "softedge",
    ControlType.LINEART: "lineart",
    ControlType.MLSD: "mlsd",
}
_DRAWN = (
    *(ControlType.CANNY, ControlType.SCRIBBLE, ControlType.BLUR, ControlType.GRAY),
    ControlType.SHUFFLE,
)
_MADE_HERE = (
    *_DRAWN,
    *(ControlType.TILE, ControlType.LOW_QUALITY, ControlType.QRCODE, ControlType.INPAINT),
)


class ControlNetUse(Frozen):
    """One ControlNet of the catalogue, how strongly it acts, and what it is shown.

    hint: made of the control picture before; none: the picture as it is; `inpaint`: the init
    picture with what is to be repainted marked.
    """

    id: str
    scale: float
    hint: ControlType | None = None
