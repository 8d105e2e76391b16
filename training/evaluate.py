"""Scores the shipped checkpoints and writes a table and contact sheets.

Run as ``python -m training.evaluate``. Every checkpoint paints 200 cases with each of several
samplers; the scorer is checked on drawn pictures first. Then come pictures of 512 px, the
adapters, the safety checker and the autoencoder. ``--parts`` and ``--checkpoints`` choose some.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from tqdm import tqdm

from training import effects, outlines
from training.domain import LORA_SHAPE, is_held_out
from training.generate import Case, generate, is_inpaint, load, make_cases
from training.mask import random_task
from training.sampling import Wish, random_background, random_pair
from training.scene import Picture, draw
from training.scorer import judge
from training.sheet import save_sheet

__all__ = ["Score", "score", "scorer_accuracy"]

SAMPLERS = ("DDIM", "EulerA", "DPM++ 2M Karras", "UniPC")
_CHECKPOINTS = ("demo-inpaint", "demo")
_BADGE_PROMPT = "a warning sign on a blue background"


@dataclass(frozen=True, slots=True)
class Score:
    """Shares of pictures with the asked colour, shape and background; both on held-out pairs.

    ``stain`` is the mean unevenness of the background in grey levels.
    """

    colour: float
    shape: float
    background: float
    held_out: float
    stain: float

    def row(self) -> str:
        """Formats the cells of one table row."""
        shares = (self.colour, self.shape, self.background, self.held_out)
        return " | ".join(f"{share:.3f}" for share in shares) + f" | {self.stain:.1f}"


def score(cases: Sequence[Case], pictures: Sequence[Picture], regional: bool) -> Score:
    """Judges pictures against what was asked, inside the mask if ``regional``."""
    verdicts = [
        judge(picture, case.mask if regional else None)
        for case, picture in zip(cases, pictures, strict=True)
    ]
    wishes = [case.wish for case in cases]
    judged = list(zip(wishes, verdicts, strict=True))
    colour = np.array([wish.colour == verdict.colour for wish, verdict in judged])
    shape = np.array([wish.shape == verdict.shape for wish, verdict in judged])
    ground = [wish.background == verdict.background for wish, verdict in judged]
    unseen = np.array([is_held_out(wish.colour, wish.shape) for wish in wishes])
    return Score(
        float(colour.mean()),
        float(shape.mean()),
        float(np.mean(ground)),
        float((colour & shape)[unseen].mean()) if unseen.any() else float("nan"),
        float(np.mean([verdict.stain for verdict in verdicts])),
    )


def scorer_accuracy(count: int) -> tuple[float, float, float]:
    """Judges drawn pictures: shares of right colours, shapes and backgrounds."""
    rng = np.random.default_rng(31)
    right = np.zeros(3)
    for _ in range(count):
        colour, shape = random_pair(rng)
        size = str(rng.choice(["", "small", "big"]))
        wish = Wish(colour, shape, size, random_background(rng, colour))
        task = random_task(rng, 256, wish)
        seen = judge(draw(task.scene, 256), task.mask)
        right += (seen.colour == colour, seen.shape == shape, seen.background == wish.background)
    first, second, third = (float(value) for value in right / count)
    return first, second, third


def _samplers(options: argparse.Namespace) -> list[str]:
    """Scores every checkpoint with every sampler at its native size."""
    return _scored(options, make_cases(options.captions, 1), SAMPLERS, "")


def _large(options: argparse.Namespace) -> list[str]:
    """Scores every checkpoint with one sampler at 512 px."""
    return _scored(options, make_cases(options.large_captions, 1, 512), SAMPLERS[:1], "-512")


def _scored(
    options: argparse.Namespace, cases: Sequence[Case], samplers: Sequence[str], suffix: str
) -> list[str]:
    """Gives the table; writes a sheet of each checkpoint with the first sampler."""
    rows = []
    for name in options.checkpoints:
        pipe = load(options.out / name)
        for sampler in tqdm(samplers, name + suffix):
            pictures = generate(pipe, cases, sampler, options.guidance, options.steps)
            result = score(cases, pictures, is_inpaint(pipe))
            rows.append(f"| {name} | {sampler} | {result.row()} |")
            if sampler == samplers[0]:
                _save_cases(options.sheets / f"{name}{suffix}.png", cases[:32], pictures)
    title = f"{len(cases)} pictures of {len(cases[0].picture)} px by"
    head = f"| {title} | sampler | colour | shape | background | held-out pairs | stain |"
    return [head, "|---|---|---|---|---|---|---|", *rows]


def _save_cases(path: Path, cases: Sequence[Case], pictures: Sequence[Picture]) -> None:
    labels = [f"{case.wish.size} {case.wish.colour} {case.wish.shape}".strip() for case in cases]
    save_sheet(path, list(zip(pictures, labels, strict=False)), 8, 128)


def _adapters(options: argparse.Namespace) -> list[str]:
    """Measures both LoRAs and the embedding on every checkpoint and writes their sheets."""
    cases = make_cases(options.adapter_captions, 5)
    loras = sorted((options.out / "demo-loras").glob("*.safetensors"))
    rows = []
    for name in options.checkpoints:
        pipe = load(options.out / name)
        found = [effects.lora_effect(pipe, path, cases, options.guidance) for path in loras]
        embedding = options.out / "demo-embedding.safetensors"
        found.append(effects.embedding_effect(pipe, embedding, cases, options.guidance))
        rows += [
            f"| {name} | {effect.name} | {effect.share_before:.3f} | {effect.share_after:.3f} |"
            for effect in found
        ]
        cells = [cell for effect in found for cell in effect.pictures]
        save_sheet(options.sheets / f"{name}-adapters.png", cells, 8)
    return ["| checkpoint | adapter | without | with |", "|---|---|---|---|", *rows]


def _safety(options: argparse.Namespace) -> list[str]:
    """Measures the safety checker on drawn pictures and on what the checkpoints paint."""
    folder = options.out / "demo-safety"
    hits, alarms = effects.safety_rates(folder)
    cases = make_cases(options.adapter_captions, 9)
    rows = [f"| drawn (200 + 200) | {hits:.3f} | {alarms:.3f} |"]
    for name in options.checkpoints:
        pipe = load(options.out / name)
        harmless = generate(pipe, cases, guidance=options.guidance)
        signs = [Case(c.wish, _BADGE_PROMPT, c.picture, c.mask, c.seed) for c in cases]
        painted = generate(pipe, signs, guidance=options.guidance)
        found, false = (np.mean(effects.flagged(folder, made)) for made in (painted, harmless))
        rows.append(f"| painted by {name}, {len(cases)} each | {found:.3f} | {false:.3f} |")
    return ["| safety checker | hits | false alarms |", "|---|---|---|", *rows]


def _autoencoder(options: argparse.Namespace) -> list[str]:
    vae = AutoencoderKL.from_pretrained(options.out / "demo" / "vae", dtype=torch.float32)
    return [f"Autoencoder: PSNR {effects.vae_psnr(vae):.1f} dB to 48 drawn pictures of 256 px."]


def _outlines(options: argparse.Namespace) -> list[str]:
    """Measures the ControlNet, alone and with the LoRA of a shape that the base cannot paint."""
    plain = outlines.make_outlines(options.captions, 3)
    drawn = [outlines.overlap(outline.drawn, outline.item) for outline in plain]
    rows, cells = [], []
    for name, cases, lora in (
        ("", plain, ""),
        (LORA_SHAPE, outlines.make_outlines(options.adapter_captions, 4, LORA_SHAPE), LORA_SHAPE),
    ):
        pictures = outlines.paint(options.out, cases, options.guidance, options.steps, lora)
        result = outlines.faithfulness(cases, pictures)
        rows.append(f"| {len(cases)} | {name or 'none'} | {result.row()} |")
        for outline, picture in list(zip(cases, pictures, strict=True))[:12]:
            cells += [(outline.edges, ""), (picture, outline.prompt.split(" on ")[0])]
    save_sheet(options.sheets / "demo-controlnet.png", cells, 8, 128)
    ceiling = (
        f"Overlap of the drawn pictures themselves, as the scorer sees it: {np.mean(drawn):.3f}."
    )
    return [
        "| ControlNet, pictures | LoRA | overlap | colour | hearts |",
        "|---|---|---|---|---|",
        *rows,
        "",
        ceiling,
    ]


_PARTS = {
    "samplers": _samplers,
    "large": _large,
    "adapters": _adapters,
    "outlines": _outlines,
    "safety": _safety,
    "autoencoder": _autoencoder,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("checkpoints"))
    parser.add_argument("--report", type=Path, default=Path("build/demo-scores.md"))
    parser.add_argument("--sheets", type=Path, default=Path("build/sheets"))
    parser.add_argument("--checkpoints", nargs="+", default=_CHECKPOINTS)
    parser.add_argument("--parts", nargs="+", choices=tuple(_PARTS), default=tuple(_PARTS))
    parser.add_argument("--captions", type=int, default=200)
    parser.add_argument("--large-captions", type=int, default=60)
    parser.add_argument("--adapter-captions", type=int, default=40)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=20)
    return parser.parse_args()


def main() -> None:
    """Scores what is asked and writes the report."""
    options, start = _options(), time.monotonic()
    colour, shape, ground = scorer_accuracy(300)
    lines = [
        f"Scorer on 300 drawn pictures: colour {colour:.3f}, shape {shape:.3f}, "
        f"background {ground:.3f}. Guidance {options.guidance}, {options.steps} steps, "
        f"{options.adapter_captions} captions per adapter."
    ]
    for part in options.parts:
        lines += ["", *_PARTS[part](options)]
    lines += ["", f"{time.monotonic() - start:.0f} s"]
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
