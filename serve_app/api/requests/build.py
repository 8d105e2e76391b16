"""A wire request and a catalogue entry to a complete `JobRequest`: defaults applied, seed drawn."""

import asyncio
import secrets
from collections.abc import Mapping

from pydantic import JsonValue

from serve_app import errors
from serve_app.api.protocol import Service
from serve_app.api.replies.link import shown
from serve_app.api.requests import (
    addon,
    control,
    enhance,
    masks,
    outpaint,
    size,
    steps,
    style,
    syntax,
    unserved,
    upscaler,
)
from serve_app.api.requests.call import Call
from serve_app.api.requests.schemas import GenerationBody, field_message
from serve_app.config import HttpConfig
from serve_app.images.source import InputPicture
from serve_app.models import ModelEntry
from serve_app.types import Api, GenerationSpec, ImageSource, JobRequest, Kind

__all__ = ["build"]


async def build(
    body: GenerationBody, kind: Kind, call: Call, service: Service, http: HttpConfig
) -> JobRequest:
    """Resolve a request. Pictures are kept last, so that a bad request stores nothing.

    Raises:
        errors.ModelNotFound: `model_id` is missing or unknown.
        errors.NotServed: the model does not do this kind of call.
        errors.InvalidFields: fields are missing, out of range or not honoured.
        errors.InvalidRequest: the webhook may not go where it is to.
        errors.InvalidImage: a picture is neither a URL nor base64.
    """
    if body.model_id is None:
        raise errors.ModelNotFound("no model_id")
    said = syntax.read(body)
    named = (*addon.ids(body, said), *control.ids(body))
    catalogue = await service.catalogue_knowing(body.model_id, *named)
    entry = catalogue.find(body.model_id, kind)
    problems = (
        _missing(body, kind, call.api)
        | steps.problems(body, kind, entry)
        | size.problems(body, call.api, entry, http)
        | unserved.reasons(body, kind, entry, can_translate=service.can_translate)
        | masks.problems(body, http)
        | outpaint.problems(body, kind, http)
        | addon.problems(body, said, entry, catalogue)
        | control.problems(body, kind, entry, catalogue, service.hint_models)
        | style.problems(body, entry, style.table(http.styles))
        | upscaler.problems(body, entry, catalogue, http)
    )
    if problems:
        raise errors.InvalidFields(problems)
    if body.webhook is not None:
        await service.check_webhook(body.webhook)
    spec = _spec(body, said, kind, entry, http)
    others: dict[str, object] = {"upscaler": upscaler.of(body, entry, catalogue, http)}
    others |= outpaint.fields(body, entry, http) | control.fields(body, entry, catalogue)
    spec = spec.model_copy(update=others)
    pictures = _pictures(body, kind) | control.pictures(body, kind)
    pictures |= {"ip_adapter_image": body.ip_adapter_image}
    given = {field: picture for field, picture in pictures.items() if picture}
    kept = await asyncio.gather(*(service.keep_input(*item) for item in given.items()))
    sources = dict(zip(given, kept, strict=True))
    output = service.reserve_output(spec.samples, body.base64, body.temp)
    if spec.drawn_hints:
        hints = service.reserve_output(len(spec.drawn_hints), False, body.temp)
        output = output.model_copy(update={"hint_keys": hints.keys})
    return JobRequest(
        spec=spec,
        init_image=None if kind is Kind.TEXT2IMG else sources.get("init_image"),
        mask_image=sources.get("mask_image"),
        ip_adapter_image=sources.get("ip_adapter_image"),
        control_image=_control_source(sources, kind),
        safety=body.safety_checker_type if body.safety_checker else None,
        output=output,
        api=call.api,
        key_id=call.key_id,
        priority=body.priority or 0,
        base_url=call.base_url,
        call_id=call.call_id,
        traceparent=call.traceparent,
        webhook=body.webhook,
        track_id=body.track_id,
        echo=_echo(body, kind) | {"tip": said.tip(entry)},
    )


def _control_source(sources: Mapping[str, ImageSource], kind: Kind) -> ImageSource | None:
    """Pick what ControlNets see; what is painted over they see anyway."""
    own = sources.get("control_image")
    return sources.get("init_image") if own is None and kind is Kind.TEXT2IMG else own


def _pictures(body: GenerationBody, kind: Kind) -> dict[str, InputPicture | None]:
    if kind is Kind.TEXT2IMG:
        return {}
    if kind is Kind.IMG2IMG:
        return {"init_image": body.init_image}
    return {"init_image": body.init_image, "mask_image": body.mask_image}


def _missing(body: GenerationBody, kind: Kind, api: Api) -> dict[str, list[str]]:
    needed: dict[str, InputPicture | None] = {"prompt": body.prompt, **_pictures(body, kind)}
    if outpaint.has_outpaint(body):
        needed.pop("mask_image", None)  # what is added is painted
    if control.has_control(body):
        return {}  # which pictures are needed `control` says; nets guess what no prompt tells
    if api in (Api.V6, Api.V7) and kind is not Kind.TEXT2IMG:
        del needed["prompt"]  # V6 OpenAPI: optional where there is a picture
    return {
        field: [field_message(field, "field is required")]
        for field, value in needed.items()
        if not value
    }


def _spec(
    body: GenerationBody, said: syntax.Said, kind: Kind, entry: ModelEntry, http: HttpConfig
) -> GenerationSpec:
    defaults = entry.defaults
    height, width = size.of(body, entry, http)
    num_steps, strength = steps.of(body, kind, entry)
    styled = style.asked(body, style.table(http.styles))
    return GenerationSpec(
        model_id=entry.id,
        kind=kind,
        prompt=enhance.positive(said.prompt, entry, styled, enhance=body.enhance_prompt),
        negative_prompt=enhance.negative(said.negative_prompt, entry, enhance=body.enhance_prompt),
        height=height,
        width=width,
        samples=body.samples or 1,
        steps=num_steps,
        guidance_scale=_guidance(body, entry),
        strength=strength,
        scheduler=body.scheduler or defaults.scheduler,
        use_karras_sigmas=body.use_karras_sigmas,
        algorithm_type=body.algorithm_type,
        seed=secrets.randbelow(2**32) if body.seed is None else body.seed,
        clip_skip=body.clip_skip or 1,
        tomesd=body.tomesd,
        loras=addon.loras(body, said),
        vae=body.vae,
        embeddings=body.embeddings_model,
        ip_adapter=addon.ip_adapter(body),
        foreign=said.prompt if body.multi_lingual else "",
        expand=body.enhance_prompt and entry.enhancement.styles,
        upscale=body.upscale,
        highres_fix=body.highres_fix,
        self_attention=body.self_attention,
        panorama=body.panorama,
        exclusive=body.exclusive,
        full_frame=body.full_frame,
        masking=masks.masking(body),
        padding_px=body.padding,
        only_masked=body.only_masked,
        fit=size.fit(body, kind, entry, http),
    )


def _guidance(body: GenerationBody, entry: ModelEntry) -> float:
    asked = body.guidance_scale
    wanted = entry.defaults.guidance_scale if asked is None else asked
    return wanted if entry.max_guidance is None else min(wanted, entry.max_guidance)


def _echo(body: GenerationBody, kind: Kind) -> dict[str, JsonValue]:
    """Values that replies repeat and that nothing else of the job holds."""
    echo: dict[str, JsonValue] = {
        "enhance_prompt": body.enhance_prompt,
        "enhance_style": body.enhance_style if body.enhance_prompt else None,
        "safety_checker_type": body.safety_checker_type.value,
        "instant_response": body.instant_response,
    }
    pictures = _pictures(body, kind) | control.pictures(body, kind)
    if body.ip_adapter_image:
        pictures |= {"ip_adapter_image": body.ip_adapter_image}
    echo |= {field: shown(picture) for field, picture in pictures.items()} | control.echo(body)
    return echo
