r"""A1111's prompt syntax on the wire: LoRAs that a prompt names, and what is not understood.

`<lora:id:0.8>` leaves the text and names a LoRA of the catalogue. Weights and BREAK stay in the
text, for the pipelines.

Source: the "Features" page of the A1111 web UI, 2023, and its `<name:arguments>` pattern.
"""

import re
from dataclasses import dataclass

from pydantic_core import PydanticCustomError

from serve_app import errors
from serve_app.api.requests import coerce
from serve_app.api.requests.schemas import MAX_LORA_STRENGTH, GenerationBody
from serve_app.models import ModelEntry
from serve_app.types import LoraUse

__all__ = ["Said", "read"]

# No pattern here takes more than linear time: prompts are long, and clients choose them.
_TAG = re.compile(r"(\s?)<(lora|lyco|hypernet):([^<>]*)>(\s?)", re.IGNORECASE)
_NUMBER = r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)\s*"
_TIPS = {
    re.compile(r"\bAND\b"): "AND joins no prompts here, it was read as a word.",
    re.compile(rf"(?<!\\)\[[^\[\]]*(?:\||:{_NUMBER}\])"): "[a:b:0.5] and [a|b] do not change the "
    "prompt between steps here, square brackets only weaken what is in them.",
}
_NEGATIVE_TIP = "What negative_prompt names as <lora:...> was left out, LoRAs act on both texts."
_WEIGHED = re.compile(rf"(?<!\\)\([^()]*:{_NUMBER}\)|\bBREAK\b")
_WEIGHED_TIP = "The model knows no weights, so (a:1.2) and BREAK were read as text."


@dataclass(frozen=True, slots=True)
class Said:
    """What the texts of a request say.

    prompt, negative_prompt: without tags. loras: named by the prompt, in its order.
    problems: what is wrong with its tags, for the client. ignored: tags of the negative prompt.
    """

    prompt: str
    negative_prompt: str
    loras: tuple[LoraUse, ...]
    problems: tuple[str, ...]
    ignored: int

    def tip(self, entry: ModelEntry) -> str:
        """Return what had no effect on pictures of this model; empty if everything had."""
        texts = f"{self.prompt}\n{self.negative_prompt}"
        tips = [tip for pattern, tip in _TIPS.items() if pattern.search(texts)]
        if self.ignored:
            tips.append(_NEGATIVE_TIP)
        if not entry.has_unet and _WEIGHED.search(texts):
            tips.append(_WEIGHED_TIP)
        return " ".join(tips)


def read(body: GenerationBody) -> Said:
    """Take the tags out of the texts of a request."""
    prompt, tags = _split(body.prompt or "")
    negative_prompt, ignored = _split(body.negative_prompt or "")
    loras, problems = [], []
    for kind, arguments in tags:
        try:
            loras.append(_lora(kind, arguments))
        except PydanticCustomError as exc:
            problems.append(f"<{kind}:{errors.echoed(arguments)}> {exc.message()}.")
    return Said(prompt, negative_prompt, tuple(loras), tuple(problems), len(ignored))


def _split(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Cut the tags out; where a blank was beside one, one stays, so that no words join."""
    tags: list[tuple[str, str]] = []

    def cut(found: re.Match[str]) -> str:
        before, kind, arguments, after = found.groups()
        tags.append((kind.lower(), arguments))
        return " " if before or after else ""

    return _TAG.sub(cut, text).strip() if "<" in text else text, tags


def _lora(kind: str, arguments: str) -> LoraUse:
    """Read what stands behind `lora:`.

    Raises:
        PydanticCustomError: another kind, no id, or no strength that a LoRA can have.
    """
    if kind != "lora":
        raise coerce.problem("is not served, only <lora:id:strength> is")
    id_, *strengths = (part.strip() for part in arguments.split(":"))
    if not id_ or len(strengths) > 1:
        raise coerce.problem("must be <lora:id> or <lora:id:strength>")
    strength = coerce.to_float(strengths[0]) if strengths else 1.0
    if abs(strength) > MAX_LORA_STRENGTH:
        low, high = -MAX_LORA_STRENGTH, MAX_LORA_STRENGTH
        raise coerce.problem(f"must have a strength between {low} and {high}")
    return LoraUse(id=coerce.to_id(id_), strength=strength)
