"""The API's 18 scheduler names: which diffusers class runs each, and what it takes. No torch.

Some names are no samplers that a latent pipeline can run; the nearest one that works runs in
their place, and the reply says so.

Source of the names: the API's documentation of 2023 to 2026; of the substitutes: section 6 of the
API's pages ("not usable samplers for a latent pipeline") and runs of each class in diffusers 0.42.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from serve_app import errors
from serve_app.types import GenerationSpec

__all__ = [
    "ALGORITHMS",
    "SAMPLERS",
    "Sampler",
    "algorithm_of",
    "in_meta",
    "sampler_for",
    "will_run",
]

ALGORITHMS = ("dpmsolver++", "sde-dpmsolver++")


@dataclass(frozen=True, slots=True)
class Sampler:
    """How one scheduler name runs.

    runs: name of the diffusers class.
    karras: whether it takes `use_karras_sigmas`.
    algorithms: values of `algorithm_type` that it takes.
    """

    runs: str
    karras: bool = False
    algorithms: tuple[str, ...] = ()


SAMPLERS: Mapping[str, Sampler] = {
    "DDPMScheduler": Sampler("DDPMScheduler"),
    "DDIMScheduler": Sampler("DDIMScheduler"),
    "PNDMScheduler": Sampler("PNDMScheduler"),
    "LMSDiscreteScheduler": Sampler("LMSDiscreteScheduler", karras=True),
    "EulerDiscreteScheduler": Sampler("EulerDiscreteScheduler", karras=True),
    "EulerAncestralDiscreteScheduler": Sampler("EulerAncestralDiscreteScheduler"),
    "DPMSolverMultistepScheduler": Sampler("DPMSolverMultistepScheduler", True, ALGORITHMS),
    "HeunDiscreteScheduler": Sampler("HeunDiscreteScheduler", karras=True),
    "KDPM2DiscreteScheduler": Sampler("KDPM2DiscreteScheduler", karras=True),
    "DPMSolverSinglestepScheduler": Sampler("DPMSolverSinglestepScheduler", True, ALGORITHMS),
    "KDPM2AncestralDiscreteScheduler": Sampler("KDPM2AncestralDiscreteScheduler", karras=True),
    "UniPCMultistepScheduler": Sampler("UniPCMultistepScheduler", karras=True),
    "DEISMultistepScheduler": Sampler("DEISMultistepScheduler", karras=True),
    "LCMScheduler": Sampler("LCMScheduler"),
    # Inverts a picture to noise, so what it paints is noise by design.
    "DDIMInverseScheduler": Sampler("DDIMScheduler"),
    # Has timesteps of its own from 0 to 1 and no `add_noise`; PNDM is what it improves upon.
    "IPNDMScheduler": Sampler("PNDMScheduler"),
    # Its step needs arguments that no pipeline passes; it is Heun's method with noise.
    "KarrasVeScheduler": Sampler("HeunDiscreteScheduler", karras=True),
    # Has no `step`; it is an ancestral sampler of the same variance-exploding process.
    "ScoreSdeVeScheduler": Sampler("EulerAncestralDiscreteScheduler"),
}

_SPELLINGS = {"dpmsolver+++": "sde-dpmsolver++"}  # the API writes three pluses
_GIVEN_UP = {"dpmsolver": "dpmsolver++", "sde-dpmsolver": "sde-dpmsolver++"}  # by diffusers


def sampler_for(name: str) -> Sampler:
    """Look up a scheduler name of the API.

    Raises:
        errors.InvalidRequest: no such name.
    """
    sampler = SAMPLERS.get(name)
    if sampler is None:
        raise errors.InvalidRequest(
            "scheduler", f"The scheduler {errors.echoed(name)} is not known"
        )
    return sampler


def algorithm_of(spec: GenerationSpec) -> str | None:
    """Return the `algorithm_type` that runs; None: the sampler has none, or none was asked for.

    Raises:
        errors.InvalidRequest: no such scheduler, or no such algorithm.
    """
    algorithms = sampler_for(spec.scheduler).algorithms
    if not algorithms or spec.algorithm_type is None:
        return None
    algorithm = (_SPELLINGS | _GIVEN_UP).get(spec.algorithm_type, spec.algorithm_type)
    if algorithm not in algorithms:
        raise errors.InvalidRequest(
            "algorithm_type", f"algorithm_type is one of {', '.join(algorithms)}"
        )
    return algorithm


def in_meta(
    runs: str, asked: GenerationSpec, *, is_karras: bool, algorithm: str | None
) -> dict[str, JsonValue]:
    """Name a sampler under the keys of `meta`, an algorithm as the request spells it."""
    if algorithm not in ALGORITHMS or (algorithm, asked.algorithm_type) == (ALGORITHMS[0], None):
        algorithm = None
    elif _SPELLINGS.get(asked.algorithm_type or "") == algorithm:
        algorithm = asked.algorithm_type
    return {
        "scheduler": runs,
        "use_karras_sigmas": "yes" if is_karras else "no",
        "algorithm_type": algorithm or "no",
    }


def will_run(spec: GenerationSpec) -> dict[str, JsonValue]:
    """Return for `meta` how a scheduler name runs, as far as that holds for any model."""
    sampler = sampler_for(spec.scheduler)
    is_karras = sampler.karras and spec.use_karras_sigmas
    return in_meta(sampler.runs, spec, is_karras=is_karras, algorithm=algorithm_of(spec))
