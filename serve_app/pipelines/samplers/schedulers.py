"""`Schedulers`: each request's own scheduler, made from a checkpoint's."""

import copy

import torch
from diffusers import DDIMScheduler, SchedulerMixin
from pydantic import JsonValue

from serve_app.pipelines.families import accepted
from serve_app.pipelines.samplers.names import (
    ALGORITHMS,
    Sampler,
    algorithm_of,
    in_meta,
    sampler_for,
)
from serve_app.pipelines.samplers.solvers import SOLVERS, own_solver
from serve_app.pipelines.samplers.tabulated import StepTables, TabulatedSampler
from serve_app.pipelines.specs import run_strength
from serve_app.types import GenerationSpec

__all__ = ["Schedulers", "ran_sampler"]

_MAX_PROTOTYPES = 64
_LCM_STEPS = 50  # of which the sampler draws its own
_STEEP = 1.5  # a last noise level so many times the one before has no room for Karras' levels
_LEAST_SIGNAL = 2**-24  # share of the picture in "no signal", as in diffusers' own classes

# What the model was trained with. A class would take its own default where a file leaves one out.
_OF_THE_MODEL = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
)
# What a file may say of a sampler besides. Whatever else stands there belongs to another class, as
# diffusers' converters copy it over, and some of it makes a sampler paint noise or fail.
_OF_THE_FILE = (
    "timestep_spacing",
    "steps_offset",
    "set_alpha_to_one",
    "solver_order",
    "use_lu_lambdas",
    "euler_at_final",
)
# Latents are not confined to [-1, 1], so these would cut them off. PNDM as Stable Diffusion ships
# it; with the Runge-Kutta start it fails below four steps.
_ALWAYS = {"clip_sample": False, "thresholding": False, "skip_prk_steps": True}
# Of classes that cannot take a model that predicts the picture itself, the nearest that can.
_OF_SAMPLES = {
    "PNDMScheduler": "DDIMScheduler",
    "EulerAncestralDiscreteScheduler": "DDPMScheduler",
    "KDPM2DiscreteScheduler": "DPMSolverSinglestepScheduler",
    "KDPM2AncestralDiscreteScheduler": "DDPMScheduler",
}
# PNDM averages noises; where there is no signal they say nothing of the picture.
_OF_NO_SIGNAL = {"PNDMScheduler": "DDIMScheduler"}


class Schedulers:
    """Makes each request its own scheduler, from a checkpoint's.

    A checkpoint that was not trained on noise schedules with a signal share per timestep (flow
    matching as in SD3 and Flux, EDM) has one sampler, its own.

    Some classes take up to a second to construct (they compute all 1000 timesteps; measured on a
    CPU), so one of each kind is kept and copied, in less than a millisecond.
    """

    def __init__(self, base: SchedulerMixin) -> None:
        self._base = base
        self._has_one = (
            not hasattr(base, "alphas_cumprod")
            or base.config.prediction_type == "flow_prediction"
            or base.config.get("timestep_type") == "continuous"
        )
        self._prototypes: dict[tuple[str, str], SchedulerMixin] = {}
        self._tables = StepTables()

    def make(self, spec: GenerationSpec) -> SchedulerMixin:
        """Make a scheduler; `ran_sampler` says what runs. Safe to call from any thread.

        The checkpoint's noise schedule and prediction type are kept.

        Raises:
            errors.InvalidRequest: unknown scheduler or algorithm type.
        """
        sampler = sampler_for(spec.scheduler)
        name = self._class_for(sampler)
        options = self._options(spec, sampler, name)
        key = (name, repr(options))
        prototype = self._prototypes.get(key)
        if prototype is None:
            prototype = self._construct(name, options)
            if len(self._prototypes) < _MAX_PROTOTYPES:
                self._prototypes[key] = prototype
        made = copy.deepcopy(prototype)
        if name == "PNDMScheduler":
            made.skipped = spec.steps - int(spec.steps * run_strength(spec))
        if isinstance(made, TabulatedSampler):
            made.share(self._tables, key)
        return made

    def _class_for(self, sampler: Sampler) -> str:
        """Name the class that runs a sampler for this checkpoint."""
        if self._has_one:
            return type(self._base).__name__
        config = self._base.config
        if config.prediction_type == "sample":
            return _OF_SAMPLES.get(sampler.runs, sampler.runs)
        if config.get("rescale_betas_zero_snr"):
            return _OF_NO_SIGNAL.get(sampler.runs, sampler.runs)
        return sampler.runs

    def _options(self, spec: GenerationSpec, sampler: Sampler, name: str) -> dict[str, object]:
        """Return the options that a request adds to those of the checkpoint."""
        algorithm, config = algorithm_of(spec), self._base.config
        options: dict[str, object] = {}
        if self._has_one:
            return options
        if sampler.algorithms:
            own = config.get("algorithm_type")
            options["algorithm_type"] = algorithm or (own if own in ALGORITHMS else ALGORITHMS[0])
        elif name == "DEISMultistepScheduler":
            options["algorithm_type"] = "deis"
        if sampler.karras:
            options["use_karras_sigmas"] = spec.use_karras_sigmas and not self._is_steep()
        if name == "LCMScheduler":
            options["original_inference_steps"] = max(_LCM_STEPS, spec.steps)
        if name == "DDIMScheduler" and config.get("timestep_spacing") == "linspace":
            options["timestep_spacing"] = "leading"  # it takes all steps to be equally long
        if spec.steps == 1:
            options["timestep_spacing"] = "trailing"  # the others begin where they end
        return options

    def _is_steep(self) -> bool:
        """Whether Karras' levels, rounded to timesteps, would be far from what the model sees.

        So it is with cosine betas. A model that predicts velocities hardly depends on the level of
        noise where there is next to no signal.
        """
        if self._base.config.prediction_type != "epsilon":
            return False
        signal = self._base.alphas_cumprod[-2:].double()
        before, last = (((1 - signal) / signal) ** 0.5).tolist()
        return bool(last > _STEEP * before)

    def _construct(self, name: str, options: dict[str, object]) -> SchedulerMixin:
        config = self._base.config
        if self._has_one:
            return own_solver(self._base).from_config(config)
        cls = SOLVERS[name]
        takes = accepted(cls.__init__).parameters
        model = {key: config[key] for key in _OF_THE_MODEL if key in config}
        unsaid = config.get("_use_default_values", ())
        own = {key: config[key] for key in _OF_THE_FILE if key in config and key not in unsaid}
        if config.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in takes:
            options = options | {"trained_betas": _zero_snr_betas(model)}
        options = _ALWAYS | model | own | options
        return cls(**{key: options[key] for key in takes if key in options})


def _zero_snr_betas(model: dict[str, object]) -> list[float]:
    """Compute betas that end without signal, for classes that cannot rescale theirs."""
    signal = DDIMScheduler(**model).alphas_cumprod.double()
    signal[-1] = _LEAST_SIGNAL
    before = torch.cat([signal.new_ones(1), signal[:-1]])
    return [float(beta) for beta in 1 - signal / before]


def ran_sampler(scheduler: SchedulerMixin, asked: GenerationSpec) -> dict[str, JsonValue]:
    """Return for `meta` what a scheduler runs, in the words of the request."""
    config = scheduler.config
    return in_meta(
        type(scheduler).__name__,
        asked,
        is_karras=config.get("use_karras_sigmas", False),
        algorithm=config.get("algorithm_type"),
    )
