"""The API's 18 scheduler names: which diffusers class runs each, with which options.

Some names are no samplers that a latent pipeline can run; the nearest one that works runs in
their place, and the reply says so. Flow-matching checkpoints (SD3, Flux) have one sampler.

Source of the names: the API's documentation of 2023 to 2026; of the substitutes: section 6 of the
API's pages ("not usable samplers for a latent pipeline") and runs of each class in diffusers 0.42.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import diffusers
from diffusers import FlowMatchEulerDiscreteScheduler, SchedulerMixin

from serve_app import errors
from serve_app.types import GenerationSpec

__all__ = ["SAMPLERS", "Sampler", "Schedulers", "sampler_for"]

_DPM_ALGORITHMS = ("dpmsolver++", "sde-dpmsolver++")


@dataclass(frozen=True, slots=True)
class Sampler:
    """How one scheduler name runs.

    runs: name of the diffusers class.
    karras: whether it takes `use_karras_sigmas`.
    algorithms: values of `algorithm_type` that it takes.
    options: always set.
    """

    runs: str
    karras: bool = False
    algorithms: tuple[str, ...] = ()
    options: tuple[tuple[str, object], ...] = ()


# As Stable Diffusion ships it; with the Runge-Kutta start it fails below four steps.
_PNDM = Sampler("PNDMScheduler", options=(("skip_prk_steps", True),))

SAMPLERS: Mapping[str, Sampler] = {
    "DDPMScheduler": Sampler("DDPMScheduler"),
    "DDIMScheduler": Sampler("DDIMScheduler"),
    "PNDMScheduler": _PNDM,
    "LMSDiscreteScheduler": Sampler("LMSDiscreteScheduler", karras=True),
    "EulerDiscreteScheduler": Sampler("EulerDiscreteScheduler", karras=True),
    "EulerAncestralDiscreteScheduler": Sampler("EulerAncestralDiscreteScheduler"),
    "DPMSolverMultistepScheduler": Sampler("DPMSolverMultistepScheduler", True, _DPM_ALGORITHMS),
    "HeunDiscreteScheduler": Sampler("HeunDiscreteScheduler", karras=True),
    "KDPM2DiscreteScheduler": Sampler("KDPM2DiscreteScheduler", karras=True),
    "DPMSolverSinglestepScheduler": Sampler("DPMSolverSinglestepScheduler", True, _DPM_ALGORITHMS),
    "KDPM2AncestralDiscreteScheduler": Sampler("KDPM2AncestralDiscreteScheduler", karras=True),
    "UniPCMultistepScheduler": Sampler("UniPCMultistepScheduler", karras=True),
    "DEISMultistepScheduler": Sampler("DEISMultistepScheduler", karras=True),
    "LCMScheduler": Sampler("LCMScheduler"),
    # Inverts a picture to noise, so what it paints is noise by design.
    "DDIMInverseScheduler": Sampler("DDIMScheduler"),
    # Has timesteps of its own from 0 to 1 and no `add_noise`; PNDM is what it improves upon.
    "IPNDMScheduler": _PNDM,
    # Its step needs arguments that no pipeline passes; it is Heun's method with noise.
    "KarrasVeScheduler": Sampler("HeunDiscreteScheduler", karras=True),
    # Has no `step`; it is an ancestral sampler of the same variance-exploding process.
    "ScoreSdeVeScheduler": Sampler("EulerAncestralDiscreteScheduler"),
}

_MAX_PROTOTYPES = 64
_ALIASES = {
    "dpmsolver+++": "sde-dpmsolver++",  # the API writes three pluses
    "dpmsolver": "dpmsolver++",  # diffusers gives up the forms without pluses
    "sde-dpmsolver": "sde-dpmsolver++",
}


def sampler_for(name: str) -> Sampler:
    """Look up a scheduler name of the API.

    Raises:
        errors.InvalidRequest: no such name.
    """
    sampler = SAMPLERS.get(name)
    if sampler is None:
        raise errors.InvalidRequest("scheduler", f"The scheduler {name[:64]} is not known")
    return sampler


class Schedulers:
    """Makes each request its own scheduler, from a checkpoint's.

    Some classes take up to a second to construct (they compute all 1000 timesteps; measured on a
    CPU), so one of each kind is kept and copied, in less than a millisecond.
    """

    def __init__(self, base: SchedulerMixin) -> None:
        self._base = base
        self._prototypes: dict[tuple[str, str], SchedulerMixin] = {}

    def make(self, spec: GenerationSpec) -> SchedulerMixin:
        """Make a scheduler; the class's name says what runs. Safe to call from any thread.

        The checkpoint's noise schedule and prediction type are kept.

        Raises:
            errors.InvalidRequest: unknown scheduler or algorithm type.
        """
        sampler = sampler_for(spec.scheduler)
        options = _options(spec, sampler)
        key = (sampler.runs, repr(options))
        prototype = self._prototypes.get(key)
        if prototype is None:
            if isinstance(self._base, FlowMatchEulerDiscreteScheduler):
                prototype = type(self._base).from_config(self._base.config)
            else:
                cls = getattr(diffusers, sampler.runs)
                prototype = cls.from_config(self._base.config, **options)
            if len(self._prototypes) < _MAX_PROTOTYPES:
                self._prototypes[key] = prototype
        return copy.deepcopy(prototype)


def _options(spec: GenerationSpec, sampler: Sampler) -> dict[str, object]:
    options = dict(sampler.options)
    if sampler.karras:
        options["use_karras_sigmas"] = spec.use_karras_sigmas
    if sampler.algorithms and spec.algorithm_type is not None:
        algorithm = _ALIASES.get(spec.algorithm_type, spec.algorithm_type)
        if algorithm not in sampler.algorithms:
            known = ", ".join(sampler.algorithms)
            raise errors.InvalidRequest("algorithm_type", f"algorithm_type is one of {known}")
        options["algorithm_type"] = algorithm
    if sampler.runs == "LCMScheduler":
        options["original_inference_steps"] = max(50, spec.steps)  # the steps are drawn from it
    return options
