"""Networks that enlarge pictures, built from the tensors of their files: ESRGAN's and the compact.

Nearly all files that people share are of one of these two. Sources: Wang et al. 2018, arXiv
1809.00219, section 3 (RRDB); Wang et al. 2021, arXiv 2107.10833, section 4 (its form for factors
1 and 2, and the compact one).
"""

import itertools
import re
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from serve_app.pipelines.addons.misfit import Unfit
from serve_app.pipelines.soundness import check_shapes

__all__ = ["Network", "read_network"]

Tensors = dict[str, torch.Tensor]
_COLOURS = 3
_SCALES = range(1, 9)  # a tile's memory grows with the square
_SLOPE = 0.2  # of what is below zero
_RESIDUAL = 0.2  # share of what a block adds
_NUM_CONVS = 5  # of a dense block; the last gives as many features as came in


class Network(nn.Module):
    """Makes pictures (1, 3, H, W) of values in [0, 1] `scale` times as large."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale


def read_network(tensors: Tensors) -> "Network":
    """Build the network that a file is of, in float32.

    Raises:
        Unfit: it is of another architecture, or its tensors do not fit together.
    """
    named = in_new_names(tensors)
    make = _compact if "body.0.weight" in named and "conv_first.weight" not in named else _dense
    with torch.device("meta"):  # nothing is drawn, since all of it is replaced
        network = make(named)
    if network.scale not in _SCALES:
        raise Unfit(f"an upscaler by a factor of {network.scale}", "a factor of 1 to 8")
    check_shapes(named, network.state_dict())
    network.load_state_dict({name: own.float() for name, own in named.items()}, assign=True)
    return network


# -- Names --------------------------------------------------------------------------------------

_BLOCK = r"body.\1.rdb\2.conv\3.\4"
# The first files name layers by their numbers, with two layers without weights after each.
_NAMES: tuple[tuple[str, str], ...] = (
    (r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.(\w+)", _BLOCK),
    (r"RRDB_trunk\.(\d+)\.RDB(\d)\.conv(\d)\.(\w+)", _BLOCK),
    (r"model\.0\.(\w+)", r"conv_first.\1"),
    (r"(?:model\.1\.sub\.\d+|trunk_conv)\.(\w+)", r"conv_body.\1"),
    (r"upconv(\d)\.(\w+)", r"conv_up\1.\2"),
    (r"HRconv\.(\w+)", r"conv_hr.\1"),
)
_NUMBERED = re.compile(r"model\.(\d+)\.(\w+)")


def in_new_names(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Name tensors as Real-ESRGAN does, whatever of the published ways a file names them in."""
    numbers = [int(found[1]) for name in tensors if (found := _NUMBERED.fullmatch(name))]
    last = max(numbers, default=0)
    ends = {last: "conv_last", last - 2: "conv_hr"}
    named: Tensors = {}
    for name, tensor in tensors.items():
        found = _NUMBERED.fullmatch(name)
        if found is not None and (number := int(found[1])) > 0:
            known = f"{ends.get(number, f'conv_up{number // 3}')}.{found[2]}"
        else:
            known = _known(name)
        if known in named:
            raise Unfit(f"two tensors for {known}", "one")
        named[known] = tensor
    return named


def _known(name: str) -> str:
    for pattern, known in _NAMES:
        if found := re.fullmatch(pattern, name):
            return found.expand(known)
    return name


# -- ESRGAN -------------------------------------------------------------------------------------


def _dense(tensors: Tensors) -> Network:
    features, channels = _sides(tensors, "conv_first")
    growth, _ = _sides(tensors, "body.0.rdb1.conv1")
    blocks = {name.split(".")[1] for name in tensors if name.startswith("body.")}
    ups = [name for name in tensors if re.fullmatch(r"conv_up\d\.weight", name)]
    shrink = {_COLOURS * side**2: side for side in (1, 2, 4)}.get(channels)
    if shrink is None or _sides(tensors, "conv_last")[0] != _COLOURS or 2 ** len(ups) < shrink:
        raise Unfit(f"an upscaler of {channels} channels", "one of pictures in colour")
    return _Dense(features, growth, len(blocks), len(ups), shrink)


class _DenseBlock(nn.Module):
    """Five convolutions, each of which sees what all before it made."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for number in range(_NUM_CONVS):
            made = features if number == _NUM_CONVS - 1 else growth
            conv = nn.Conv2d(features + number * growth, made, 3, padding=1)
            self.add_module(f"conv{number + 1}", conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add a share of what they make to x."""
        *convs, last = self.children()
        seen = x
        for conv in convs:
            seen = torch.cat((seen, functional.leaky_relu(conv(seen), _SLOPE)), 1)
        made: torch.Tensor = last(seen)
        return x + _RESIDUAL * made


class _ResidualBlock(nn.Module):
    """Three dense blocks, of which a share is added."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = _DenseBlock(features, growth)
        self.rdb2 = _DenseBlock(features, growth)
        self.rdb3 = _DenseBlock(features, growth)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add a share of what they make to x."""
        made: torch.Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return x + _RESIDUAL * made


class _Dense(Network):
    """ESRGAN's generator. shrink: side of the squares of pixels that it sees as one."""

    def __init__(self, features: int, growth: int, blocks: int, ups: int, shrink: int) -> None:
        super().__init__(2**ups // shrink)
        self._shrink = shrink
        self.conv_first = nn.Conv2d(_COLOURS * shrink**2, features, 3, padding=1)
        self.body = nn.Sequential(*(_ResidualBlock(features, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        self._ups = [f"conv_up{number + 1}" for number in range(ups)]
        for name in self._ups:
            self.add_module(name, nn.Conv2d(features, features, 3, padding=1))
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, _COLOURS, 3, padding=1)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Enlarge a picture (1, 3, H, W), whose sides are multiples of `shrink`."""
        x = self.conv_first(functional.pixel_unshuffle(picture, self._shrink))
        x = x + self.conv_body(self.body(x))
        for name in self._ups:
            larger = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = functional.leaky_relu(self.get_submodule(name)(larger), _SLOPE)
        made: torch.Tensor = self.conv_last(functional.leaky_relu(self.conv_hr(x), _SLOPE))
        return made


# -- The compact form ---------------------------------------------------------------------------


def _compact(tensors: Tensors) -> Network:
    features, channels = _sides(tensors, "body.0")
    last = max(int(name.split(".")[1]) for name in tensors if re.match(r"body\.\d+\.", name))
    outputs, _ = _sides(tensors, f"body.{last}")
    scale = next(n for n in itertools.count(1) if _COLOURS * n**2 >= outputs)
    if channels != _COLOURS or outputs != _COLOURS * scale**2 or last % 2:
        raise Unfit(f"an upscaler of {channels} channels", "one of pictures in colour")
    return _Compact(features, last // 2, scale)


class _Compact(Network):
    """Convolutions at the size that a picture has; the last makes squares of pixels of each one."""

    def __init__(self, features: int, layers: int, scale: int) -> None:
        super().__init__(scale)
        body: list[nn.Module] = []
        for number in range(layers):
            body.append(nn.Conv2d(features if number else _COLOURS, features, 3, padding=1))
            body.append(nn.PReLU(features))
        body.append(nn.Conv2d(features, _COLOURS * scale**2, 3, padding=1))
        self.body = nn.Sequential(*body)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Enlarge a picture (1, 3, H, W): add to each pixel's square."""
        plain = functional.interpolate(picture, scale_factor=self.scale, mode="nearest")
        added: torch.Tensor = functional.pixel_shuffle(self.body(picture), self.scale)
        return plain + added


def _sides(tensors: Tensors, name: str) -> tuple[int, int]:
    """Return how many channels a convolution makes of how many."""
    weight = tensors.get(f"{name}.weight")
    if weight is None or weight.ndim != 4 or 0 in weight.shape:
        raise Unfit(f"no convolution {name}", "an upscaler of the form of ESRGAN")
    return weight.shape[0], weight.shape[1]
