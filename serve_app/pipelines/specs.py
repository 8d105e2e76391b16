"""Small rules on a `GenerationSpec` that every painter keeps. No torch."""

import math

from pydantic import JsonValue

from serve_app import errors
from serve_app.types import GenerationSpec, Kind, PreparedImages

__all__ = [
    "check_kind",
    "first_size",
    "named_add_ons",
    "ran_effects",
    "ran_size",
    "run_strength",
    "sample_specs",
    "sized",
    "window_starts",
]

_FIRST_SPREAD = 0.25  # share by which a side of the first pass may differ for the sake of the shape
_AREA_WEIGHT = 0.1  # a tenth more or fewer pixels are worth a hundredth of stretching


def check_kind(spec: GenerationSpec, kinds: tuple[Kind, ...]) -> None:
    """Refuse a kind that the model does not do.

    Raises:
        errors.InvalidRequest: the kind is not among `kinds`.
    """
    if spec.kind not in kinds:
        raise errors.InvalidRequest("model_id", f"The model does not do {spec.kind.value}")


def named_add_ons(spec: GenerationSpec) -> tuple[str, ...]:
    """Ids of all that a request names: LoRAs, VAE, embeddings, ControlNets and others."""
    adapter = None if spec.ip_adapter is None else spec.ip_adapter.id
    single = (id_ for id_ in (spec.vae, adapter, spec.upscaler) if id_ is not None)
    loras = (use.id for use in spec.loras)
    nets = (use.id for use in spec.acting_controlnets)
    return (*loras, *spec.embeddings, *nets, *single)


def sized(spec: GenerationSpec, images: PreparedImages | None) -> GenerationSpec:
    """Take the size from the init or control picture where the spec leaves it to them."""
    pictures = () if images is None else (images.init, *images.controls)
    picture = next((one for one in pictures if one is not None), None)
    if (spec.fit is None and spec.outpaint is None) or picture is None:
        return spec
    size = {"height": picture.height, "width": picture.width, "fit": None}
    return spec.model_copy(update=size)


def sample_specs(spec: GenerationSpec) -> list[GenerationSpec]:
    """Split a job into its samples; sample i has seed + i."""
    return [
        spec.model_copy(update={"samples": 1, "seed": (spec.seed + index) % 2**32})
        for index in range(spec.samples)
    ]


def run_strength(spec: GenerationSpec) -> float:
    """Return the strength to run with: at least one step's worth; text2img is all noise."""
    if spec.kind is Kind.TEXT2IMG:
        return 1.0
    one_step = (1 + 1e-6) / spec.steps  # pipelines round steps * strength down
    return min(1.0, max(spec.strength, one_step))


def first_size(
    spec: GenerationSpec, native_px: int, multiple_px: int = 8
) -> tuple[int, int] | None:
    """Height and width of the first pass of `highres_fix`, pixels.

    Past the size that they were trained at, models repeat objects. So the composition is painted
    with the asked shape and about the native number of pixels, then enlarged and painted over.
    None where there is nothing to do: not asked for, not larger, or a panorama, which is painted
    at the native size anyway.

    multiple_px: of the sides. Among such sizes a true shape counts more than the number of pixels,
    since what was stretched by the enlarging stays so.
    """
    if not spec.highres_fix or spec.panorama or spec.kind is not Kind.TEXT2IMG:
        return None
    scale = native_px / math.sqrt(spec.height * spec.width)

    def cost(size: tuple[int, int]) -> float:
        stretch = abs(math.log(size[1] * spec.height / (size[0] * spec.width)))
        return stretch + _AREA_WEIGHT * abs(math.log(math.prod(size) / native_px**2))

    heights = _multiples(spec.height * scale, multiple_px)
    widths = _multiples(spec.width * scale, multiple_px)
    size = min(((height, width) for height in heights for width in widths), key=cost)
    return size if math.prod(size) < spec.height * spec.width else None


def _multiples(length: float, multiple: int) -> range:
    """List the multiples near a length; at least one."""
    first = max(1, round(length * (1 - _FIRST_SPREAD) / multiple))
    last = max(first, round(length * (1 + _FIRST_SPREAD) / multiple))
    return range(first * multiple, (last + 1) * multiple, multiple)


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Place the windows of a panorama along a side; all in latent cells, or all in pixels.

    overlap: share of a window that the next one covers too; the last one ends at the edge.
    """
    if length <= window:
        return [0]
    stride = max(1, round(window * (1 - overlap)))
    return [*range(0, length - window, stride), length - window]


def ran_size(asked: GenerationSpec, spec: GenerationSpec) -> dict[str, JsonValue]:
    """Return which size ran where it was left to the init picture."""
    is_open = asked.fit is not None or asked.outpaint is not None
    return {"W": spec.width, "H": spec.height} if is_open else {}


def ran_effects(spec: GenerationSpec, native_px: int, multiple_px: int = 8) -> dict[str, JsonValue]:
    """Return how a highres fix began, and which effects had nothing to do."""
    ran: dict[str, JsonValue] = {}
    first = first_size(spec, native_px, multiple_px)
    if first is not None:
        ran["first_pass"] = list(first)
    elif spec.highres_fix:
        ran["highres_fix"] = "no"
    if spec.panorama and max(spec.height, spec.width) <= native_px:
        ran["panorama"] = "no"
    return ran
