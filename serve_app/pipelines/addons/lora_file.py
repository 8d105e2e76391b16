"""LoRA files in one form: a pair of matrices for each layer, which say all that is to be added.

Trainers name layers in their own ways, and have their own for the factor that a product is to be
multiplied by: `alpha` beside each pair (kohya), or a peft configuration in the header (diffusers).
Here diffusers finds the layers' names, and the factor goes into the matrices: a layer with the
weights W becomes W + strength * up @ down, with nothing else to know. What this form has no place
for is refused, since diffusers would leave it out without a word.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from diffusers.utils.state_dict_utils import (
    StateDictType,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from peft import LoraConfig
from peft.utils.other import get_pattern_key

from serve_app import errors
from serve_app.pipelines.addons.lora_names import in_known_names
from serve_app.pipelines.addons.lycoris import in_pairs
from serve_app.pipelines.addons.misfit import Unfit
from serve_app.pipelines.soundness import check_tensor

__all__ = ["Convert", "Pair", "Tensors", "read_pairs"]

Tensors = dict[str, torch.Tensor]
Convert = Callable[[Tensors], Mapping[str, torch.Tensor]]  # to diffusers' names

_FORM = "pairs of LoRA matrices"
_MATRIX = re.compile(
    r"(?P<layer>.+?)"
    r"(?:\.lora_|[._]lora\.|\.lora_linear_layer\.|\.)(?P<half>down|up|A|B)\.weight"
)
_EXTRA = re.compile(r"(?P<layer>.+)\.(?P<kind>alpha|dora_scale|lora_magnitude_vector)(?:\.weight)?")
_HALVES = {"A": "down", "B": "up"}
_PLACED = re.compile(r"(?P<layer>.+)\.lora_(?P<half>A|B)\.weight")

_CONFIG = "lora_adapter_metadata"  # of the header, in JSON
_READ = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora"}
_OF_TRAINING = {
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
    "inference_mode", "target_modules", "exclude_modules", "lora_dropout", "layers_to_transform",
    "layers_pattern", "eva_config",
}  # fmt: skip
_STARTS = (True, False, "gaussian", "eva", "orthogonal")  # that leave the model's weights alone


@dataclass(frozen=True, slots=True)
class Pair:
    """Of one layer. down: (r, in, ...). up: (out, r, ...). magnitude: of a DoRA, (out,)."""

    down: torch.Tensor
    up: torch.Tensor
    magnitude: torch.Tensor | None = None

    def for_weights(self, shape: tuple[int, ...]) -> "Pair":
        """Return it in the shape of weights; LyCORIS flattens the matrices of convolutions."""
        if self.down.ndim == len(shape) or self.down.shape[1] != math.prod(shape[1:]):
            return self
        up = self.up.view(*self.up.shape, *[1] * (len(shape) - self.up.ndim))
        return replace(self, down=self.down.view(-1, *shape[1:]), up=up)


def read_pairs(
    tensors: Tensors, header: Mapping[str, str], convert: Convert
) -> dict[str, dict[str, Pair]]:
    """Bring a file into the one form.

    Args:
        tensors: of the file.
        header: of the file.
        convert: gives tensors in kohya's names those of diffusers.

    Returns:
        Pairs by layer, by component of the pipeline.

    Raises:
        Unfit: it holds something else too, or not all that it should.
    """
    tensors = in_pairs(in_known_names(tensors))
    halves, magnitudes = _sorted(tensors)
    placed = _placed(convert(halves))
    _check_none_lost(halves, placed)
    _add_magnitudes(placed, halves, magnitudes)
    for component, settings in _settings(header).items():
        if any(name.endswith(".alpha") for name in tensors):
            raise Unfit("alphas both as tensors and in the header", "one of them")
        pairs = placed.get(component, {})
        for layer, pair in pairs.items():
            if settings.get("use_dora") and pair.magnitude is None:
                raise Unfit("a DoRA without magnitudes", "DoRA magnitudes for all layers")
            pairs[layer] = replace(pair, up=_scaled(pair.up, _factor(settings, layer, pair)))
    return placed


def _sorted(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Check that each matrix has its partner, scale the ups by alpha, and take magnitudes out."""
    names: dict[str, dict[str, str]] = {}
    for name, tensor in tensors.items():
        match = _MATRIX.fullmatch(name) or _EXTRA.fullmatch(name)
        if match is None:
            raise Unfit(f"the tensor {errors.echoed(name)}", _FORM)
        layer, kind = match.groups()
        names.setdefault(layer, {})[_HALVES.get(kind, kind)] = name
        check_tensor(name, tensor)
    if not names:
        raise Unfit("no tensors", _FORM)
    halves, magnitudes = dict(tensors), {}
    for layer, own in names.items():
        if not {"down", "up"} <= own.keys():
            raise Unfit(f"half a pair of matrices for {layer}", "both halves")
        _check_ranks(layer, halves[own["down"]], halves[own["up"]])
        if "alpha" in own:
            _fold_alpha(halves, own["up"], own["alpha"])
        for kind in ("dora_scale", "lora_magnitude_vector"):
            if kind in own:
                magnitudes[own["down"]] = _magnitude(halves.pop(own[kind]), kind, layer)
    return halves, magnitudes


def _check_ranks(layer: str, down: torch.Tensor, up: torch.Tensor) -> None:
    if down.ndim != up.ndim or down.ndim not in (2, 4) or down.shape[0] != up.shape[1]:
        found = f"matrices of the shapes {tuple(down.shape)} and {tuple(up.shape)} for {layer}"
        raise Unfit(found, "shapes that can be multiplied")


def _fold_alpha(tensors: Tensors, up: str, alpha: str) -> None:
    """Multiply by alpha/rank; what stays in the file then says that they are equal."""
    rank = tensors[up].shape[1]
    if tensors[alpha].numel() != 1:
        raise Unfit(f"{alpha} of the shape {tuple(tensors[alpha].shape)}", "one number")
    tensors[up] = _scaled(tensors[up], float(tensors[alpha]) / rank)
    tensors[alpha] = torch.tensor(float(rank))


def _scaled(up: torch.Tensor, factor: float) -> torch.Tensor:
    return up if factor == 1.0 else up.float() * factor


def _magnitude(tensor: torch.Tensor, kind: str, layer: str) -> torch.Tensor:
    """Return a DoRA's magnitudes as (out,); kohya's may be those of the inputs, (1, in)."""
    shape = tensor.shape
    if kind == "dora_scale" and len(shape) > 1 and shape[0] == 1:
        raise Unfit(f"DoRA magnitudes of the inputs of {layer}", "DoRA magnitudes of the outputs")
    return tensor.flatten()


def _placed(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, Pair]]:
    """Sort tensors in diffusers' names by component and layer, in peft's names."""
    components: dict[str, Tensors] = {}
    for name, tensor in tensors.items():
        component, _, rest = name.partition(".")
        if not name.endswith(".alpha"):
            components.setdefault(component, {})[rest] = tensor
    return {component: dict(_pairs(component, own)) for component, own in components.items()}


def _pairs(component: str, tensors: Tensors) -> Iterator[tuple[str, Pair]]:
    if component.startswith("text_encoder"):
        for form in (StateDictType.DIFFUSERS_OLD, StateDictType.DIFFUSERS):
            tensors = convert_state_dict_to_peft(tensors, form)
    else:
        tensors = convert_unet_state_dict_to_peft(tensors)
    for name, down in tensors.items():
        match = _PLACED.fullmatch(name)
        if match is None:
            raise Unfit(f"the tensor {component}.{errors.echoed(name)}", _FORM)
        if match["half"] == "A":
            yield match["layer"], Pair(down, tensors[f"{match['layer']}.lora_B.weight"])


def _check_none_lost(halves: Tensors, placed: Mapping[str, Mapping[str, Pair]]) -> None:
    """Compare the sums of squares of all ups: whether these are renamed or cut, they stay the same.

    A converter that knows no place for a layer leaves it out.
    """
    before = [tensor for name, tensor in halves.items() if _half(name) == "up"]
    after = [pair.up for pairs in placed.values() for pair in pairs.values()]
    if not math.isclose(_energy(before), _energy(after), rel_tol=1e-6):
        raise Unfit("layers that have no place in the model", "layers that it has")


def _half(name: str) -> str | None:
    match = _MATRIX.fullmatch(name)
    return None if match is None else _HALVES.get(match["half"], match["half"])


def _energy(tensors: list[torch.Tensor]) -> float:
    return sum(float(tensor.double().square().sum()) for tensor in tensors)


def _add_magnitudes(
    placed: dict[str, dict[str, Pair]], halves: Tensors, magnitudes: Tensors
) -> None:
    """Find the pair of each by its matrix, which a change of names leaves as it is."""
    by_down = {id(halves[name]): magnitude for name, magnitude in magnitudes.items()}
    for pairs in placed.values():
        found = {layer: by_down.pop(id(pair.down), None) for layer, pair in pairs.items()}
        with_magnitude = sum(magnitude is not None for magnitude in found.values())
        if with_magnitude not in (0, len(pairs)):
            raise Unfit(f"DoRA magnitudes for {with_magnitude} layers", f"for all {len(pairs)}")
        for layer, magnitude in found.items():
            pairs[layer] = replace(pairs[layer], magnitude=magnitude)
    if by_down:
        raise Unfit("DoRA magnitudes in a form of this kind of model", "LoRA matrices alone")


def _settings(header: Mapping[str, str]) -> dict[str, dict[str, object]]:
    """Read the peft configurations of the header, by component."""
    try:
        said = json.loads(header.get(_CONFIG, "{}"))
        pairs = [(*name.partition("."), value) for name, value in said.items()]
    except (ValueError, AttributeError) as exc:
        raise Unfit(f"a header whose {_CONFIG} cannot be read", "a JSON object") from exc
    settings: dict[str, dict[str, object]] = {}
    for component, _, name, value in pairs:
        settings.setdefault(component, {})[name] = value
    for own in settings.values():
        _check_settings(own)
    return settings


def _check_settings(settings: Mapping[str, object]) -> None:
    """Refuse what would change pictures and is not done here."""
    defaults = LoraConfig().to_dict()
    for name, value in settings.items():
        if name in _READ | _OF_TRAINING or not value or value == defaults.get(name):
            continue
        if name == "init_lora_weights" and value in _STARTS:
            continue
        raise Unfit(f"the setting {name}: {errors.echoed(value)}", "a plain LoRA or DoRA")


def _factor(settings: Mapping[str, object], layer: str, pair: Pair) -> float:
    """Return alpha/rank of a layer, or alpha/sqrt(rank); the configuration is peft's."""
    rank = pair.up.shape[1]
    pattern = settings.get("alpha_pattern") or {}
    try:
        assert isinstance(pattern, dict), "peft writes an object"
        alpha = pattern.get(get_pattern_key(list(pattern), layer), settings.get("lora_alpha", rank))
        return float(alpha) / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    except (AssertionError, TypeError, ValueError, re.error) as exc:
        raise Unfit(f"an alpha of {layer} that is not a number", "a number") from exc
