"""The table of layouts for people: `python -m tests.meta.formats > docs/formats.md`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from serve_app.models.inspect.adapters import NAMINGS
from serve_app.models.inspect.inspection import FileType
from serve_app.models.inspect.layout import Layout
from serve_app.models.inspect.layouts import LAYOUTS

__all__ = ["markdown"]

_HEAD = """# Formats of weight files

What a file of the catalogue is, is read off the header of its safetensors: names and shapes of
tensors, and what its writer said there. No tensor is loaded, but for the few numbers of `alpha`.
It is told by `dreamserve models add` and `verify` and by `POST /admin/models`, which refuse at
once what is something else than its entry says. Written by `python -m tests.meta.formats`, from
the table in `serve_app/models/inspect/layouts.py`, and from `tests/data/formats.json`, which
`python -m tests.engine.published` measures.

## How it is told

- **Type**: the first row below whose keys are all there. `*` is anything, `#` a number.
- **Family**: by shapes (the width of the text that the denoiser attends to is 768 in Stable
  Diffusion 1, 1024 in 2, 2048 in XL and 1280 in its refiner), else by names. Where these leave a
  choice, `modelspec.architecture`, `ss_base_model_version` or `ss_v2` of the header decide; where
  they do not, several families are named: a VAE of four channels fits Stable Diffusion 1, 2 and
  XL.
- **Variant and channels**: 9 input channels are inpainting, 8 pix2pix, 5 depth; Flux is dev,
  schnell, fill, or depth or canny; Stable Diffusion 3 is 3 medium, 3.5 medium or 3.5 large. Flux
  without an embedding of the guidance is schnell, unless the header says dev: nothing else in a
  file tells schnell from a dev whose guidance was trained away.
- **Prediction and zero terminal SNR**: the tensors `v_pred`, `ztsnr`, `edm_mean` and
  `edm_vpred.sigma_max`; else `modelspec.prediction_type`, `modelspec.predict_key`,
  `ss_v_parameterization` and `ss_zero_terminal_snr`; of a folder its scheduler's configuration.
  Stable Diffusion 3 and Flux predict the flow. Many files do not tell.
- **Parts**, their bytes and precision: UNet or transformer, VAE, text encoders by their width,
  EMA copies.
- **Rank and alpha** of LoRAs and their like: those of most layers; alpha from its tensors, else
  `ss_network_alpha` or `lora_adapter_metadata`.
- **Trigger words and name**: `modelspec.trigger_phrase`, else the commonest of
  `ss_tag_frequency`; `modelspec.title`, else `ss_output_name`.

A folder with `model_index.json` is told by its configurations; a folder of one component by its
`config.json`; any other by its one file, or the one IP adapter that it holds. Pickles (`.ckpt`,
`.pt`, `.pth`, `.bin`, and what begins like one under another name) are named as such and not
opened.
"""


_SERVED = """## What is served, and what it was held against

Each row is a small file with random numbers in the layout, written by code, whose shapes are the
published ones where they tell what it is (`tests/engine/published`). It was served as a catalogue
does and painted a picture; the same weights in stock diffusers painted another. The difference is
the largest of any value of the two, which are between 0 and 1. `served` is what the entry has
besides its source, or the type of an add-on.
"""
_MEASURED = Path(__file__).parents[1] / "data" / "formats.json"


def markdown() -> str:
    """Write the page."""
    return "\n".join([_HEAD, *_sections(), ""])


def _sections() -> Iterator[str]:
    yield _SERVED
    yield "| layout | found as | served | checked against, or refused since | difference |"
    yield "|---|---|---|---|---|"
    measured = json.loads(_MEASURED.read_text(encoding="utf-8"))
    yield from (_measured(row) for row in measured.values())
    yield "\n## What is recognised\n"
    yield "| layout | found as | keys |\n|---|---|---|"
    yield from (_row(row) for row in LAYOUTS if row.type is not FileType.OTHER)
    yield "\n## Whose names LoRAs and their like have\n"
    yield "A file with none of these is of no known layout.\n"
    yield "| names | pattern |\n|---|---|"
    yield from (f"| {sign.means} | {_code(sign.pattern)} |" for sign in NAMINGS)
    yield "\n## What is known by name, and not served\n"
    yield "| what | keys |\n|---|---|"
    yield from (f"| {row.name} | {_keys(row)} |" for row in LAYOUTS if row.type is FileType.OTHER)


def _measured(row: dict[str, str | float | None]) -> str:
    difference = row["difference"]
    if row["refused"]:
        truth, told = f"refused: {row['refused']}", ""
    else:
        truth, told = str(row["checked"]), f"{difference:.1e}" if difference else "0"
    return f"| {row['layout']} | {row['found']} | {row['served']} | {truth} | {told} |"


def _row(row: Layout) -> str:
    return f"| {row.name} | {row.type} | {_keys(row)} |"


def _keys(row: Layout) -> str:
    return ", ".join(_code(key) for key in row.keys)


def _code(pattern: str) -> str:
    return f"`{pattern}`".replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(markdown())
