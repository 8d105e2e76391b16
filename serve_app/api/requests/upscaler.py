"""What `upscale` enlarges with: the upscaler that the model or the configuration names."""

from serve_app.api.requests.schemas import GenerationBody
from serve_app.config import HttpConfig
from serve_app.models import Catalogue, ModelEntry

__all__ = ["of", "problems"]


def of(
    body: GenerationBody, entry: ModelEntry, catalogue: Catalogue, http: HttpConfig
) -> str | None:
    """Return the add-on of a request without problems; None: Lanczos resampling."""
    if body.upscale == 1:
        return None
    if entry.upscaler is not None:
        return entry.upscaler
    add_on = None if http.upscaler is None else catalogue.find_add_on(http.upscaler, "upscaler")
    return add_on.id if add_on is not None and add_on.fits(entry.id) else None


def problems(
    body: GenerationBody, entry: ModelEntry, catalogue: Catalogue, http: HttpConfig
) -> dict[str, list[str]]:
    """Return why what is named cannot be had: another picture than usual would look like success.

    A configured upscaler that is for other models only is passed over.
    """
    wanted = entry.upscaler or http.upscaler
    if body.upscale == 1 or wanted is None:
        return {}
    add_on = catalogue.find_add_on(wanted, "upscaler")
    if add_on is None:
        return {"upscale": [f"No upscaler of the id {wanted} is in the catalogue."]}
    if entry.upscaler is not None and not add_on.fits(entry.id):
        return {"upscale": [f"The upscaler {wanted} is not for the model {entry.id}."]}
    return {}
