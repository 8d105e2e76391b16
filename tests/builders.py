"""Small valid values for tests; every keyword overrides a field."""

from serve_app.types import GenerationSpec, JobRequest, Kind, OutputPlan

__all__ = ["job_request", "spec", "webhook_body"]


def spec(**changes):
    values = {
        "model_id": "tiny",
        "kind": Kind.TEXT2IMG,
        "prompt": "a red circle",
        "height": 64,
        "width": 64,
        "steps": 4,
        "seed": 1,
        "scheduler": "DDIMScheduler",
    }
    return GenerationSpec(**{**values, **changes})


def job_request(**changes):
    values = {
        "spec": spec(),
        "output": OutputPlan(keys=("generations/a.png",)),
        "key_id": "open",
        "base_url": "http://testserver",
    }
    return JobRequest(**{**values, **changes})


async def webhook_body(_job, _outcome):
    return "{}"
