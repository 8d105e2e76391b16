"""Why weights do not fit: raised where it is found out, shown to the client as a field's error.

Whoever judges an add-on raises `Unfit` in words of its own; `judging` names the add-on and its
field. What a library finds wrong goes to the log: its words may hold paths, and help no client.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import torch

from serve_app import errors
from serve_app.pipelines.addons.lookup import Named

__all__ = ["Unfit", "judging"]

_log = structlog.get_logger()
_FORMS = {
    "lora": "a LoRA or DoRA for the model's own layers",
    "vae": "the tensors and settings of an AutoencoderKL",
    "embedding": "vectors for the model's text encoders",
    "ip_adapter": "an IP adapter and its image encoder, as diffusers reads them",
    "controlnet": "a ControlNet for the model's own UNet",
    "upscaler": "an upscaler of the form of ESRGAN, or of its compact form",
}


class Unfit(ValueError):
    """Weights do not fit: `Unfit(found, expected)`, in words for clients, without any path."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(found, expected)
        self.found = found
        self.expected = expected

    def __str__(self) -> str:
        return f"found {self.found}, expected {self.expected}"


@contextmanager
def judging(named: Named) -> Iterator[None]:
    """Turn whatever is found wrong with an add-on into an error of ours.

    Raises:
        errors.AddOnMisfit: it does not fit, as the words of an `Unfit` say or a library does.
        errors.OutOfMemory: there is no room for it.
    """
    try:
        yield
    except errors.DreamserveError:
        raise
    except torch.OutOfMemoryError as exc:
        raise errors.OutOfMemory(str(exc)) from exc
    except Unfit as exc:
        raise _misfit(named, exc) from exc
    except Exception as exc:  # whatever the libraries find wrong with the files
        _log.warning("add_on_misfit", add_on=named.entry.id, reason=f"{type(exc).__name__}: {exc}")
        raise _misfit(named, Unfit("files of another form", _FORMS[named.entry.type])) from exc


def _misfit(named: Named, reason: Unfit) -> errors.AddOnMisfit:
    return errors.AddOnMisfit(named.field, f"The {named.title} does not fit this model: {reason}")
