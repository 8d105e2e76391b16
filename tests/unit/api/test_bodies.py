"""What bodies take: bounds, defaults, and what becomes of a body that says nothing."""

import pytest
from pydantic import ValidationError

from serve_app.api.requests.schemas import ControlNetBody, GenerationBody, OutpaintBody
from serve_app.types import SafetyAction


def message(body, **fields):
    """Return why a body is refused; empty if it is not."""
    try:
        body.model_validate(fields)
    except ValidationError as exc:
        return exc.errors()[0]["msg"]
    return ""


@pytest.mark.parametrize(
    ("body", "field", "least", "most"),
    [
        (GenerationBody, "samples", 1, 4),
        (GenerationBody, "guidance_scale", 1, 20),
        (GenerationBody, "strength", 0, 1),
        (GenerationBody, "clip_skip", 1, 8),
        (GenerationBody, "ip_adapter_scale", 0, 1),
        (GenerationBody, "lora_strength", -10, 10),
        (OutpaintBody, "guidance_scale", 1, 20),
        (ControlNetBody, "control_guidance_start", 0, 1),
        (ControlNetBody, "control_guidance_end", 0, 1),
        (ControlNetBody, "controlnet_conditioning_scale", 0, 5),
    ],
)
def test_number_has_its_bounds(body, field, least, most):
    step = 1 if field in ("samples", "clip_skip") else 0.01
    for good in (least, most, str(least), str(most)):
        assert message(body, **{field: good}) == ""
    for bad in (least - step, most + step):
        assert f"must be between {least} and {most}" in message(body, **{field: bad})


@pytest.mark.parametrize(
    "name", ["dpmsolver", "dpmsolver++", "dpmsolver+++", "sde-dpmsolver", "sde-dpmsolver++"]
)
def test_algorithm_is_one_of_the_documented_ones(name):
    assert GenerationBody(algorithm_type=name).algorithm_type == name
    assert message(GenerationBody, algorithm_type=f"{name}x")


NAMES = ("lora_model", "lora_strength", "embeddings_model")
YES = ("safety_checker", "enhance_prompt", "tomesd", "use_karras_sigmas")
NO = (
    "multi_lingual", "panorama", "self_attention", "highres_fix", "base64", "temp",
    "instant_response", "exclusive", "full_frame", "invert_mask", "only_masked",
)  # fmt: skip
TEXT2IMG = {
    **dict.fromkeys(NAMES, ()),
    **dict.fromkeys(YES, True),
    **dict.fromkeys(NO, False),
    "safety_checker_type": SafetyAction.TEXT,
    "upscale": 1,
}
OUTPAINT = {
    "prompt": "high quality",
    "negative_prompt": "low quality",
    "width": 1280,
    "height": 720,
    "num_inference_steps": 10,
    "guidance_scale": 8.0,
    "temp": True,
    "anchor": (0.5, 0.5),
}
CONTROLNET = {
    **dict.fromkeys(("controlnet_model", "controlnet_type"), ()),
    "controlnet_conditioning_scale": (),
    "guess_mode": False,
}


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (GenerationBody, TEXT2IMG),
        (OutpaintBody, TEXT2IMG | OUTPAINT),
        (ControlNetBody, TEXT2IMG | CONTROLNET),
    ],
)
def test_body_that_says_nothing_has_the_documented_defaults(body, wanted):
    made = body().model_dump()
    assert {name: value for name, value in made.items() if value is not None} == wanted
