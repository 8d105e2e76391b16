"""`AddOns`: LoRAs, VAEs, ControlNets and their like, which requests to a model may name.

Each is looked up, brought onto this node and judged when a request names it. So one that is added
at run time works at once, a bad one fails the requests that name it and nobody else, and a local
file that was replaced is another add-on from the next request on.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from serve_app import errors
from serve_app.config import CatalogueConfig
from serve_app.models import AddOn, AddOnType
from serve_app.models.weights.files import fingerprint
from serve_app.models.weights.resolve import resolve
from serve_app.types import GenerationSpec

__all__ = ["AddOns", "FindAddOn", "Named", "NamedAddOns"]

FindAddOn = Callable[[str, AddOnType], AddOn | None]  # `Catalogue.find_add_on`
_NOUNS: dict[AddOnType, tuple[str, str]] = {  # with the field of requests
    "lora": ("LoRA", "lora_model"),
    "vae": ("VAE", "vae"),
    "embedding": ("embedding", "embeddings_model"),
    "ip_adapter": ("IP adapter", "ip_adapter_id"),
    "controlnet": ("ControlNet", "controlnet_model"),
    "upscaler": ("upscaler", "upscale"),
}


@dataclass(frozen=True, slots=True)
class Named:
    """An add-on whose file is here. key: tells it from all others, and from what it was before."""

    entry: AddOn
    key: str

    @property
    def title(self) -> str:
        """What clients read it called."""
        return _title(self.entry.id, self.entry.type)

    @property
    def field(self) -> str:
        """Field of requests that names it."""
        return _NOUNS[self.entry.type][1]


@dataclass(frozen=True, slots=True)
class NamedAddOns:
    """What one request names, LoRAs and embeddings by id, ControlNets in its order."""

    loras: dict[str, Named] = field(default_factory=dict)
    vae: Named | None = None
    embeddings: dict[str, Named] = field(default_factory=dict)
    ip_adapter: Named | None = None
    controlnets: tuple[Named, ...] = ()
    upscaler: Named | None = None

    @property
    def large(self) -> tuple[str, ...]:
        """Keys of what takes memory worth counting; an embedding takes kilobytes."""
        single = (self.vae, self.ip_adapter, self.upscaler)
        named = (*self.loras.values(), *single, *self.controlnets)
        return tuple(one.key for one in named if one is not None)

    @property
    def triggers(self) -> dict[str, str]:
        """Words that the embeddings stand for, by id."""
        return {name: one.entry.trigger or name for name, one in self.embeddings.items()}


class AddOns:
    """Safe to call from several threads.

    Args:
        model_id: whose requests name them.
        find: looks one up in the catalogue as it is now; none: there are no add-ons.
        config: how weights are had.
    """

    def __init__(
        self,
        model_id: str,
        find: FindAddOn = lambda _id, _type: None,
        config: CatalogueConfig = CatalogueConfig(),  # noqa: B008  # frozen
    ) -> None:
        self._model_id = model_id
        self._find = find
        self._config = config
        self._here: dict[str, Named] = {}  # by what the catalogue says
        self._locks: dict[str, Lock] = {}

    def of(self, spec: GenerationSpec) -> NamedAddOns:
        """Bring here what a request names. Blocks, for as long as a download takes.

        Raises:
            errors.InvalidRequest: an add-on that the catalogue does not have for this model.
            errors.WeightsRefused: its files cannot be had or may not be loaded.
        """
        adapter = spec.ip_adapter
        return NamedAddOns(
            loras={use.id: self._get(use.id, "lora") for use in spec.loras},
            vae=None if spec.vae is None else self._get(spec.vae, "vae"),
            embeddings={name: self._get(name, "embedding") for name in spec.embeddings},
            ip_adapter=None if adapter is None else self._get(adapter.id, "ip_adapter"),
            controlnets=tuple(self._get(use.id, "controlnet") for use in spec.acting_controlnets),
            upscaler=None if spec.upscaler is None else self._get(spec.upscaler, "upscaler"),
        )

    def _get(self, add_on_id: str, add_on_type: AddOnType) -> Named:
        entry = self._find(add_on_id, add_on_type)
        if entry is None or not entry.fits(self._model_id):
            text = f"The {_title(errors.echoed(add_on_id), add_on_type)} is not known"
            raise errors.InvalidRequest(_NOUNS[add_on_type][1], text)
        said = entry.model_dump_json()
        with self._locks.setdefault(said, Lock()):
            here = self._here.get(said)
            if here is None or here.key != _key(entry, said):
                found = resolve(entry, self._config)
                here = self._here[said] = Named(found, _key(entry, said))
        return here


def _title(add_on_id: str, add_on_type: AddOnType) -> str:
    return f"{_NOUNS[add_on_type][0]} {add_on_id}"


def _key(entry: AddOn, said: str) -> str:
    """Look at a local file anew; a hub's is what it was when it was fetched."""
    source = entry.source
    if not isinstance(source, Path):
        return said
    files = [source] if source.is_file() else sorted(source.rglob("*"))
    return said + fingerprint({str(file): file for file in files if file.is_file()})
