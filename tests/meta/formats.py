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

The server identifies a weight file by its safetensors header: by the names and shapes of its
tensors, and by the metadata that its writer put there. It loads no tensor except the few numbers
of `alpha`. `dreamserve models add` and `verify` and `POST /admin/models` identify files in this
way, and refuse at once a file that is not what its entry says. `python -m tests.meta.formats`
writes this page from the table in `serve_app/models/inspect/layouts.py` and from
`tests/data/formats.json`, which `python -m tests.engine.published` measures.

## How a file is identified

- **Type**: the first row below whose keys are all present. `*` matches anything, `#` a number.
- **Family**: by shapes (the width of the text that the denoiser attends to is 768 in Stable
  Diffusion 1, 1024 in 2, 2048 in XL and 1280 in its refiner), else by names. Where several
  families remain, `modelspec.architecture`, `ss_base_model_version` or `ss_v2` of the header
  decides; where none of them does, all of these families are named: a VAE of four channels fits
  Stable Diffusion 1, 2 and XL.
- **Variant and channels**: 9 input channels mean inpainting, 8 pix2pix, 5 depth; Flux is dev,
  schnell, fill, or depth or canny; Stable Diffusion 3 is 3 medium, 3.5 medium or 3.5 large. Flux
  without a guidance embedding is schnell, unless the header says dev: nothing else in a file
  distinguishes schnell from a dev whose guidance was trained away.
- **Prediction and zero terminal SNR**: the tensors `v_pred`, `ztsnr`, `edm_mean` and
  `edm_vpred.sigma_max`; else `modelspec.prediction_type`, `modelspec.predict_key`,
  `ss_v_parameterization` and `ss_zero_terminal_snr`; for a folder, its scheduler's
  configuration. Stable Diffusion 3 and Flux predict the flow. Many files do not say.
- **Parts**, their bytes and precision: UNet or transformer, VAE, text encoders by their width,
  EMA copies.
- **Rank and alpha** of LoRAs and related adapters: those that most layers have; alpha comes from
  its tensors, else from `ss_network_alpha` or `lora_adapter_metadata`.
- **Trigger words and name**: `modelspec.trigger_phrase`, else the most frequent of
  `ss_tag_frequency`; `modelspec.title`, else `ss_output_name`.

A folder with `model_index.json` is identified by its configurations; a folder of one component by
its `config.json`; any other by its one file, or by the one IP adapter that it holds. Pickles
(`.ckpt`, `.pt`, `.pth`, `.bin`, and files under other names that begin like a pickle) are reported
as pickles and not opened.
"""


_SERVED = """## What is served, and what it was compared with

Each row is a small file with random numbers in the layout, written by code, whose shapes are the
published ones where shapes identify the layout (`tests/engine/published`). It was served from a
catalogue and painted a picture; the same weights in stock diffusers painted another. The
difference is the largest between any two values of these pictures, which are between 0 and 1.
`served` is what the entry has besides its source, or the type of an add-on.
"""
_MEASURED = Path(__file__).parents[1] / "data" / "formats.json"


def markdown() -> str:
    """Write the page."""
    return "\n".join([_HEAD, *_sections(), ""])


def _sections() -> Iterator[str]:
    yield _SERVED
    yield "| layout | found as | served | checked against, or reason for refusal | difference |"
    yield "|---|---|---|---|---|"
    measured = json.loads(_MEASURED.read_text(encoding="utf-8"))
    yield from (_measured(row) for row in measured.values())
    yield "\n## What is recognised\n"
    yield "| layout | found as | keys |\n|---|---|---|"
    yield from (_row(row) for row in LAYOUTS if row.type is not FileType.OTHER)
    yield "\n## Naming schemes of LoRAs and related adapters\n"
    yield "A file that matches none of these patterns has no known layout.\n"
    yield "| names | pattern |\n|---|---|"
    yield from (f"| {sign.means} | {_code(sign.pattern)} |" for sign in NAMINGS)
    yield "\n## What is recognised but not served\n"
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
