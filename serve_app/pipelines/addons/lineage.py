"""`Lineage`: which kind a model is, and whether a weight file says it was made for another.

Files of another kind may have the very shapes of this one: the text encoder of Stable Diffusion 1
is the first of XL's two, and their VAEs differ in a number only. Trainers write in the header of a
safetensors file what they trained on; what it says is believed, and silence is no objection.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
from diffusers import DiffusionPipeline

from serve_app.models.inspect.inspection import Family
from serve_app.models.inspect.metadata import claimed_families
from serve_app.pipelines.addons.misfit import Unfit

__all__ = ["Lineage", "lineage_of", "read_header"]

_SD1, _SD2, _XL = Family.SD1.noun, Family.SD2.noun, Family.SDXL.noun
_SD3, _FLUX = Family.SD3.noun, Family.FLUX.noun
_BY_PIPELINE = {"StableDiffusionXL": _XL, "StableDiffusion3": _SD3, "Flux": _FLUX}
_BY_TEXT_WIDTH = {768: _SD1, 1024: _SD2}  # of the UNet's cross attention


@dataclass(frozen=True, slots=True)
class Lineage:
    """Kinds that a model may be of, by the names that people use."""

    names: frozenset[str]

    def check(self, header: Mapping[str, str]) -> None:
        """Raise Unfit when the header of a file says that it is made for another kind."""
        for family in claimed_families(header):
            if family.noun not in self.names:
                raise Unfit(
                    f"a file for {family.noun}", f"one for {' or '.join(sorted(self.names))}"
                )

    def check_vae(self, header: Mapping[str, str]) -> None:
        """Do the same for a VAE: Stable Diffusion 1 and 2 have one in common."""
        shared = {_SD1, _SD2}
        Lineage(self.names | shared if self.names & shared else self.names).check(header)


def lineage_of(pipeline: DiffusionPipeline) -> Lineage:
    """Return the kind of a loaded pipeline, by its class and the width of its text."""
    for beginning, name in _BY_PIPELINE.items():
        if type(pipeline).__name__.startswith(beginning):
            return Lineage(frozenset({name}))
    known = _BY_TEXT_WIDTH.get(pipeline.unet.config.cross_attention_dim)
    return Lineage(frozenset({_SD1, _SD2} if known is None else {known}))


def read_header(file: Path) -> dict[str, str]:
    """Read what a safetensors file says of itself."""
    with safetensors.safe_open(file, "pt") as opened:
        return dict(opened.metadata() or {})
