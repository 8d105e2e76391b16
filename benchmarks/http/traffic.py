"""The requests: one endless list, the same for every server and every round.

Mixed traffic comes in blocks of 30, each a shuffle of all pairs of 10 samplers and 3 kinds with
steps spread evenly over 10 to 50, so that a short measurement sees the same mix as a long one.
With LoRAs each of them names those that the calls of a published trace do.
"""

import base64
import io
import random
from collections.abc import Iterator

import numpy as np
from PIL import Image

from benchmarks.http.loras import NAMES
from benchmarks.lora_mix import POPULARITY, services

__all__ = ["KINDS", "Body", "arrivals_s", "identical", "mixed", "with_loras"]

Body = dict[str, str | int | float]

KINDS = ("text2img", "img2img", "inpaint")
SAMPLERS = (
    "UniPCMultistepScheduler",
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "HeunDiscreteScheduler",
    "DEISMultistepScheduler",
    "PNDMScheduler",
    "DDPMScheduler",
)
STEPS = (10, 50)
GUIDANCE = (3.0, 5.0, 7.5, 9.0, 12.0)
STRENGTH = (0.6, 0.8, 1.0)
LORA_STRENGTH = ("0.5", "0.8", "1.0")
SIDE_PX = 64  # the smallest that the API allows

# Fields that only our service knows; off, since the stock pipelines have none of it.
_OURS: Body = {
    "model_id": "random",
    "enhance_prompt": "no",
    "safety_checker": "no",
    "tomesd": "no",
    "use_karras_sigmas": "no",
}


def mixed(seed: int) -> Iterator[Body]:
    """Draw requests that differ in everything but size."""
    rng = random.Random(seed)
    pairs = [(sampler, kind) for sampler in SAMPLERS for kind in KINDS]
    low, high = STEPS
    while True:
        rng.shuffle(pairs)
        steps = [round(low + (high - low) * n / (len(pairs) - 1)) for n in range(len(pairs))]
        rng.shuffle(steps)
        for (sampler, kind), count in zip(pairs, steps, strict=True):
            yield _body(rng, kind, sampler, count, rng.choice(GUIDANCE), rng.choice(STRENGTH))


def identical(seed: int) -> Iterator[Body]:
    """Draw requests that differ in prompt and seed only: the best case of static batching."""
    rng = random.Random(seed)
    while True:
        yield _body(rng, KINDS[0], SAMPLERS[0], 30, 7.5, 1.0)


def with_loras(seed: int) -> Iterator[Body]:
    """Draw mixed requests that name LoRAs as those of the trace's service A do: 91 % name two.

    The LoRAs are as popular as the first of the trace's 14,500.
    """
    rng = np.random.default_rng(seed)
    mix = services(POPULARITY[: len(NAMES)])["A"]
    for body in mixed(seed):
        [loras] = mix.draw(rng, 1)
        if loras:
            strengths = rng.choice(LORA_STRENGTH, len(loras))
            body["lora_model"] = ",".join(NAMES[lora] for lora in loras)
            body["lora_strength"] = ",".join(map(str, strengths))
        yield body


def arrivals_s(rng: random.Random, rate_hz: float, duration_s: float) -> list[float]:
    """Draw Poisson arrival times, seconds from the start."""
    times: list[float] = []
    now = rng.expovariate(rate_hz)
    while now < duration_s:
        times.append(now)
        now += rng.expovariate(rate_hz)
    return times


def _body(
    rng: random.Random, kind: str, sampler: str, steps: int, guidance: float, strength: float
) -> Body:
    body = _OURS | {
        "kind": kind,
        "prompt": f"a picture of number {rng.randrange(10**6)}",
        "seed": rng.randrange(2**32),
        "steps": steps,
        "guidance_scale": guidance,
        "scheduler": sampler,
        "width": SIDE_PX,
        "height": SIDE_PX,
    }
    if kind != "text2img":
        body |= {"strength": strength, "init_image": _init(rng.randrange(8))}
    if kind == "inpaint":
        body["mask_image"] = _mask()
    return body


def _init(number: int) -> str:
    """Make a smooth picture, since noise would not compress like one."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return _png(Image.fromarray(coarse).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC))


def _mask() -> str:
    mask = Image.new("L", (SIDE_PX, SIDE_PX), 0)
    mask.paste(255, (SIDE_PX // 4, SIDE_PX // 4, SIDE_PX * 3 // 4, SIDE_PX * 3 // 4))
    return _png(mask)


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
