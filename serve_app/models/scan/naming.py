"""`id_of`: the id that clients send for a file, made from its name."""

import re
import unicodedata

__all__ = ["id_of"]

_MAX_LENGTH = 96  # of a `ModelId`
_FOREIGN = re.compile(r"[^a-z0-9._]+")
_EDGES = "-._"


def id_of(name: str) -> str | None:
    """Return an id for a file's name without its ending; None when no letter or digit is left.

    `My LoRA (v1.2) [abc]` becomes `my-lora-v1.2-abc`; accents are left out.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    made = _FOREIGN.sub("-", plain.lower()).strip(_EDGES)
    return made[:_MAX_LENGTH].rstrip(_EDGES) or None
