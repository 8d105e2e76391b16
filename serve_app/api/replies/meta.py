"""`meta` of replies and webhooks: what was run, under the hosted API's names and in its order."""

import re

from pydantic import JsonValue

from serve_app.api.replies.link import LinkMaker
from serve_app.models.revision import asked_id
from serve_app.pipelines.samplers.names import will_run
from serve_app.types import Job, Kind

__all__ = ["linked_meta", "meta"]


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Key order of the documented replies, 2023; what later years added follows in `_LATER`.
_ORDER = {
    Kind.TEXT2IMG: _names(
        "prompt model_id negative_prompt scheduler safetychecker W H guidance_scale seed steps "
        "n_samples full_url upscale multi_lingual panorama self_attention embeddings lora outdir "
        "file_prefix"
    ),
    Kind.IMG2IMG: _names(
        "prompt model_id scheduler safetychecker negative_prompt W H guidance_scale init_image "
        "steps n_samples strength multi_lingual full_url upscale seed outdir file_prefix"
    ),
    Kind.INPAINT: _names(
        "prompt model_id scheduler safetychecker negative_prompt W H guidance_scale init_image "
        "mask_image multi_lingual steps n_samples full_url upscale seed outdir file_prefix"
    ),
}
_LATER = _names(
    "safety_checker safety_checker_type enhance_prompt enhance_style tomesd use_karras_sigmas "
    "algorithm_type vae lora lora_strength embeddings clip_skip highres_fix self_attention temp "
    "base64 instant_response ip_adapter_id ip_adapter_scale ip_adapter_image watermark webhook "
    "track_id id"
)
_CONTROL = _names(
    "controlnet_model controlnet_type auto_hint guess_mode controlnet_conditioning_scale strength "
    "init_image control_image mask_image"
)
_NUMBER_FIRST = re.compile(r"\d-(.+)")
_NUMBER_LAST = re.compile(r"(.+)-\d\.[a-z0-9]+")
_IP_ADAPTER_SCALE = 0.6  # what documented replies show when no adapter was asked for


def meta(job: Job) -> dict[str, JsonValue]:
    """Describe a job; where another thing ran than was asked for, what ran."""
    values = _request_values(job) | _fixed_values()
    kind = job.request.spec.kind
    later = (*_LATER, "strength") if kind is Kind.INPAINT else _LATER
    if job.request.spec.controlnets:
        later = (*later, *_CONTROL)
    if job.request.spec.upscale > 1:
        later = (*later, "upscaler")
    ordered = {name: values[name] for name in (*_ORDER[kind], *later)}
    return ordered | (job.result.ran if job.result else {})


async def linked_meta(job: Job, make_link: LinkMaker, base_url: str) -> dict[str, JsonValue]:
    """Describe a job, with links to the hints that its ControlNets are shown, by their type.

    They lead somewhere when the job has succeeded, as `future_links` do.

    Raises:
        errors.StorageUnavailable: the store could not make the links.
    """
    keys = zip(job.request.spec.drawn_hints, job.request.output.hint_keys, strict=False)
    links: dict[str, JsonValue] = {hint: await make_link(key, base_url) for hint, key in keys}
    return meta(job) | ({"hint_images": links} if links else {})


def _request_values(job: Job) -> dict[str, JsonValue]:
    request, spec = job.request, job.request.spec
    echo = request.echo
    checked = _yes_no(request.safety is not None)
    return {
        "prompt": spec.prompt,
        "negative_prompt": spec.negative_prompt,
        "model_id": asked_id(spec.model_id),
        **will_run(spec),
        "safetychecker": checked,
        "safety_checker": checked,
        "safety_checker_type": echo.get("safety_checker_type"),
        "W": spec.width,
        "H": spec.height,
        "guidance_scale": spec.guidance_scale,
        "strength": spec.strength,
        "steps": spec.steps,
        "n_samples": spec.samples,
        "seed": spec.seed,
        "init_image": echo.get("init_image", ""),
        "mask_image": echo.get("mask_image", ""),
        "enhance_prompt": _yes_no(echo.get("enhance_prompt", False)),
        "enhance_style": echo.get("enhance_style"),
        "instant_response": _yes_no(echo.get("instant_response", False)),
        "tomesd": _yes_no(spec.tomesd),
        "vae": spec.vae,
        "lora": ",".join(lora.id for lora in spec.loras) or None,
        "lora_strength": ",".join(_plain(lora.strength) for lora in spec.loras) or 1,
        "embeddings": ",".join(spec.embeddings) or None,
        "ip_adapter_id": spec.ip_adapter.id if spec.ip_adapter else None,
        "ip_adapter_scale": spec.ip_adapter.scale if spec.ip_adapter else _IP_ADAPTER_SCALE,
        "ip_adapter_image": echo.get("ip_adapter_image"),
        "controlnet_model": ",".join(use.id for use in spec.controlnets),
        "controlnet_type": echo.get("controlnet_type"),
        "auto_hint": _yes_no(echo.get("auto_hint", False)),
        "guess_mode": _yes_no(spec.guess_mode),
        "controlnet_conditioning_scale": _numbers([use.scale for use in spec.controlnets]),
        "control_image": echo.get("control_image", ""),
        "clip_skip": spec.clip_skip,
        "multi_lingual": _yes_no(spec.foreign),
        "highres_fix": _yes_no(spec.highres_fix),
        "panorama": _yes_no(spec.panorama),
        "self_attention": _yes_no(spec.self_attention),
        "upscale": "no" if spec.upscale == 1 else str(spec.upscale),
        "upscaler": spec.upscaler or "lanczos",
        "temp": _yes_no(request.output.temp),
        "base64": _yes_no(request.output.base64),
        "webhook": request.webhook,
        "track_id": request.track_id,
        "id": str(job.id),
        "file_prefix": _file_prefix(job),
    }


def _fixed_values() -> dict[str, JsonValue]:
    """Keys whose features are not served; asked for, they are refused, so these are true."""
    return {
        "full_url": "no",
        "watermark": "no",
        "outdir": "out",
    }


def _numbers(values: list[float]) -> JsonValue:
    """Write one as a number, several as text, as clients send them."""
    return values[0] if len(values) == 1 else ",".join(_plain(value) for value in values)


def _plain(strength: float) -> str:
    """Write 1.0 as 1 and the sum of 0.1 and 0.2 as 0.3."""
    return f"{strength:.6f}".rstrip("0").rstrip(".")


def _yes_no(value: JsonValue) -> str:
    return "yes" if value else "no"


def _file_prefix(job: Job) -> str:
    """What the names of all files share, as documented for each of the two forms of names.

    `{i}-{uuid}.png` has "{uuid}.png" (late 2023 on), `{uuid}-{i}.png` has "{uuid}" (before).
    """
    name = job.request.output.keys[0].rpartition("/")[2]
    numbered = _NUMBER_FIRST.fullmatch(name) or _NUMBER_LAST.fullmatch(name)
    return numbered.group(1) if numbered else name
