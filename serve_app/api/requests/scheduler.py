"""The names of schedulers, and how clients spell them."""

__all__ = ["SCHEDULERS", "SCHEDULER_BY_LOWER"]

# API page "Schedulers", 2023 to 2026; which of them a model can run is for the pipelines to say.
SCHEDULERS = (
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "DPMSolverSinglestepScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "UniPCMultistepScheduler",
    "DDIMInverseScheduler",
    "DEISMultistepScheduler",
    "IPNDMScheduler",
    "KarrasVeScheduler",
    "ScoreSdeVeScheduler",
    "LCMScheduler",
)
SCHEDULER_BY_LOWER = {name.lower(): name for name in SCHEDULERS}
SCHEDULER_BY_LOWER |= {name.removesuffix("scheduler"): v for name, v in SCHEDULER_BY_LOWER.items()}
SCHEDULER_BY_LOWER["deis"] = "DEISMultistepScheduler"  # spelt so on the A1111 page
