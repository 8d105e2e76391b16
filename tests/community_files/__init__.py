"""Weight files as people download them: the true names and shapes of each layout, and no numbers.

A file is its header and a hole, so a checkpoint of 7 GB takes a few hundred kilobytes. The shapes
come from the arithmetic of each architecture; `tests/engine/test_community_files.py` holds them
against stock diffusers and transformers.
"""

from tests.community_files.adapters import kohya
from tests.community_files.checkpoints import all_in_one, sd_checkpoint
from tests.community_files.controlnets import diffusers_controlnet
from tests.community_files.file import write
from tests.community_files.ip_adapters import ip_adapter
from tests.community_files.shapes import of_type, under
from tests.community_files.table import ADAPTERS, FILES, write_named
from tests.community_files.text_encoders import clip, t5
from tests.community_files.transformers import diffusers_flux, diffusers_sd3, flux, sd3
from tests.community_files.unets import REFINER, XL, in_diffusers_names, ldm_unet
from tests.community_files.vaes import diffusers_vae, ldm_vae

__all__ = [
    "ADAPTERS",
    "FILES",
    "REFINER",
    "XL",
    "all_in_one",
    "clip",
    "diffusers_controlnet",
    "diffusers_flux",
    "diffusers_sd3",
    "diffusers_vae",
    "flux",
    "in_diffusers_names",
    "ip_adapter",
    "kohya",
    "ldm_unet",
    "ldm_vae",
    "of_type",
    "sd3",
    "sd_checkpoint",
    "t5",
    "under",
    "write",
    "write_named",
]
