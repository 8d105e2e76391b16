"""Ids of the two revisions of a model that has a canary."""

__all__ = ["asked_id", "canary_id", "is_canary"]

_ENDING = "@canary"  # no entry's id holds an @


def canary_id(model_id: str) -> str:
    """Return the id that a model's canary goes by inside."""
    return model_id + _ENDING


def is_canary(model_id: str) -> bool:
    """Whether this is the id of a canary."""
    return model_id.endswith(_ENDING)


def asked_id(model_id: str) -> str:
    """Return the id that clients ask for, of a model or of its canary."""
    return model_id.removesuffix(_ENDING)
