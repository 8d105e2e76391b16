"""Add-ons that a request names: looked up in the catalogue, never used as a path.

Source: api-reference 5.1 and 5.6. A comma list of ids, strengths in the same order; one strength
counts for all LoRAs of the list, a shorter list is filled up with 1. LoRAs that the prompt names
come on top, each with its own.
"""

from serve_app import errors
from serve_app.api.requests.schemas import GenerationBody, field_message
from serve_app.api.requests.syntax import Said
from serve_app.models import AddOnType, Catalogue, ModelEntry
from serve_app.types import IpAdapterUse, LoraUse

__all__ = ["ids", "ip_adapter", "loras", "problems"]

_NOUNS: dict[AddOnType, str] = {
    "lora": "LoRA",
    "vae": "VAE",
    "embedding": "embedding",
    "ip_adapter": "IP adapter",
}
_IP_ADAPTER_SCALE = 0.6  # what documented replies show
_MAX_NAMED = 16  # of one type in one request; each LoRA costs memory and time at every switch


def ids(body: GenerationBody, said: Said) -> tuple[str, ...]:
    """All ids that a request names, as they came."""
    single = tuple(id_ for id_ in (body.vae, body.ip_adapter_id) if id_ is not None)
    tagged = (use.id for use in said.loras)
    return (*body.lora_model, *tagged, *body.embeddings_model, *single)


def problems(
    body: GenerationBody, said: Said, entry: ModelEntry, catalogue: Catalogue
) -> dict[str, list[str]]:
    """Return which ids are missing, or not for this model; empty if all are fine."""
    asked: dict[str, tuple[AddOnType, tuple[str, ...]]] = {
        "prompt": ("lora", tuple(use.id for use in said.loras)),
        "lora_model": ("lora", body.lora_model),
        "vae": ("vae", () if body.vae is None else (body.vae,)),
        "embeddings_model": ("embedding", body.embeddings_model),
        "ip_adapter_id": (
            "ip_adapter",
            () if body.ip_adapter_id is None else (body.ip_adapter_id,),
        ),
    }
    found = {
        field: _id_problems(field, add_on_type, ids, entry, catalogue)
        for field, (add_on_type, ids) in asked.items()
    }
    found["prompt"] += said.problems
    if not found["prompt"] and len(body.lora_model) <= _MAX_NAMED < _num_loras(body, said):
        text = f"may not name more than {_MAX_NAMED} LoRAs, those of lora_model among them"
        found["prompt"] = [field_message("prompt", text)]
    if body.lora_model and len(body.lora_strength) > len(body.lora_model):
        text = "has more values than lora_model has ids"
        found["lora_strength"] = [field_message("lora_strength", text)]
    if not found["ip_adapter_id"]:
        found |= _picture_problems(body)
    return {field: texts for field, texts in found.items() if texts}


def _picture_problems(body: GenerationBody) -> dict[str, list[str]]:
    """An IP adapter needs a picture, and a picture needs an IP adapter."""
    if (body.ip_adapter_id is None) == (not body.ip_adapter_image):
        return {}
    missing = "ip_adapter_image" if body.ip_adapter_id else "ip_adapter_id"
    return {missing: [field_message(missing, "field is required")]}


def ip_adapter(body: GenerationBody) -> IpAdapterUse | None:
    """Pair the IP adapter with its scale."""
    if body.ip_adapter_id is None:
        return None
    scale = body.ip_adapter_scale
    return IpAdapterUse(id=body.ip_adapter_id, scale=_IP_ADAPTER_SCALE if scale is None else scale)


def loras(body: GenerationBody, said: Said) -> tuple[LoraUse, ...]:
    """Pair the LoRAs with their strengths; those of one that is named several times add up."""
    ids, strengths = body.lora_model, body.lora_strength
    if len(strengths) == 1:
        strengths *= len(ids)
    filled = strengths[: len(ids)] + (1.0,) * (len(ids) - len(strengths))
    added: dict[str, float] = {}
    for id_, strength in zip(ids, filled, strict=True):
        added[id_] = added.get(id_, 0.0) + strength
    for use in said.loras:
        added[use.id] = added.get(use.id, 0.0) + use.strength
    return tuple(LoraUse(id=id_, strength=strength) for id_, strength in added.items())


def _num_loras(body: GenerationBody, said: Said) -> int:
    return len(body.lora_model) + len(said.loras)


def _id_problems(
    field: str,
    add_on_type: AddOnType,
    ids: tuple[str, ...],
    entry: ModelEntry,
    catalogue: Catalogue,
) -> list[str]:
    if len(ids) > _MAX_NAMED:
        return [field_message(field, f"may not have more than {_MAX_NAMED} ids")]
    texts = []
    for id_ in dict.fromkeys(ids):
        noun, shown = _NOUNS[add_on_type], errors.echoed(id_)
        add_on = catalogue.find_add_on(id_, add_on_type)
        if add_on is None:
            texts.append(f"No {noun} of the id {shown} is in the catalogue.")
        elif not add_on.fits(entry.id):
            texts.append(f"The {noun} {shown} is not for the model {entry.id}.")
    return texts
