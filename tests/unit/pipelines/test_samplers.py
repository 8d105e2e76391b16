"""Every scheduler name with a denoiser that knows the picture, as in `docs/samplers.md`."""

import re
from pathlib import Path

import pytest
import torch
from diffusers import SchedulerMixin
from diffusers.configuration_utils import FrozenDict
from diffusers.utils import logging

from benchmarks.denoiser import Checkpoint, Denoiser, Pictures, paint, residual
from benchmarks.samplers import CHECKPOINTS, LIMIT, ROWS, Grid, cells, head, table
from serve_app.pipelines.families import FAMILIES
from serve_app.pipelines.samplers.names import SAMPLERS
from serve_app.pipelines.samplers.schedulers import Schedulers
from serve_app.testing.checkpoints import random_vae
from serve_app.types import GenerationSpec, Kind

# Stock pipelines speak of the offset that some of the checkpoints' configurations leave out.
pytestmark = pytest.mark.filterwarnings("ignore:The configuration file of this scheduler")
PAGE = (Path(__file__).parents[3] / "docs" / "samplers.md").read_text(encoding="utf-8")
# Few steps, many steps, the numbers at which some class failed, and starts near the end.
GRID: Grid = {
    Kind.TEXT2IMG: [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (7, 1.0), (21, 1.0)],
    Kind.IMG2IMG: [(1, 1.0), (2, 0.5), (4, 0.5), (5, 0.8), (10, 0.3), (30, 0.1), (50, 0.04)],
    Kind.INPAINT: [(1, 1.0), (3, 1.0), (4, 0.5), (10, 0.3), (30, 0.1)],
}


@pytest.fixture(autouse=True)
def quiet():
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    yield
    logging.set_verbosity(before)


def third(number: int) -> Grid:
    """Every third run of each kind: three checkpoints in a row see all of them."""
    return {kind: runs[number % 3 :: 3] for kind, runs in GRID.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("title", "grid"),
    [
        *(pytest.param(title, third(at), id=title) for at, title in enumerate(CHECKPOINTS)),
        *(
            pytest.param(title, GRID, id=f"{title}, all runs", marks=pytest.mark.long)
            for title in CHECKPOINTS
        ),
    ],
)
def test_sampler_comes_out_at_the_picture_as_its_page_says(title: str, grid: Grid) -> None:
    found = cells(CHECKPOINTS[title], grid)
    left = {f"{row} {kind}": cell.residuals for (row, kind), cell in found.items()}
    assert {of: all_ for of, all_ in left.items() if not max(all_) <= LIMIT} == {}
    said, measured = _section(title), table(found)
    assert [_words(line) for line in said] == [_words(line) for line in measured]
    for line, thin in zip(said, measured, strict=True):
        pairs = zip(_figures(line), _figures(thin), strict=True)
        assert all(figure + 0.0015 > one for figure, one in pairs), f"{line} but {thin}"


STRAYS: list[dict[str, object]] = [
    {"final_sigmas_type": "sigma_min"},
    {"final_sigmas_type": "denoise_to_zero", "interpolation_type": "log_linear"},
    {"lower_order_final": False, "solver_order": 3},
    {"predict_x0": False, "solver_type": "bh1"},
    {"sigma_min": 0.002, "sigma_max": 80.0},
    {"use_flow_sigmas": True, "use_dynamic_shifting": True},
    {"use_beta_sigmas": True},
    {"use_exponential_sigmas": True},
    {"variance_type": "fixed_large"},
    {"variance_type": "learned_range"},
]
STRAY_STEPS = (1, 3, 10, 21)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stray", "steps"),
    [
        pytest.param(
            stray,
            STRAY_STEPS[first::2],
            id=", ".join([*stray, f"{STRAY_STEPS[first::2]} steps"]),
            marks=[pytest.mark.long] * (first != number % 2),
        )
        for number, stray in enumerate(STRAYS)
        for first in range(2)
    ],
)
def test_sampler_comes_out_at_the_picture_whatever_the_file_says_for_another(
    stray: dict[str, object], steps: tuple[int, ...]
) -> None:
    """Each option is right for some class of diffusers, and copied along with a configuration."""
    sd = CHECKPOINTS["Stable Diffusion 1.5"]
    checkpoint = Checkpoint(sd.family, "DDIMScheduler", {**sd.config, **stray})
    found = cells(checkpoint, {Kind.TEXT2IMG: [(number, 1.0) for number in steps]})
    left = {str(row): cell.residuals for (row, _), cell in found.items()}
    assert {of: all_ for of, all_ in left.items() if not max(all_) <= LIMIT} == {}


def test_page_has_all_checkpoints_and_nothing_beyond_the_limit() -> None:
    assert PAGE.startswith(head())
    assert re.findall(r"^## (.*)$", PAGE, re.MULTILINE) == list(CHECKPOINTS)
    figures = [
        figure for title in CHECKPOINTS for line in _section(title) for figure in _figures(line)
    ]
    assert len(figures) == len(CHECKPOINTS) * 3 * sum(
        2 if SAMPLERS[row.name].karras else 1 for row in ROWS
    )
    assert 0 < max(figures) <= LIMIT


def _section(title: str) -> list[str]:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0].strip().splitlines()


def _figures(line: str) -> list[float]:
    return [float(figure) for figure in re.findall(r"\d\.\d{3}|inf", line)]


def _words(line: str) -> str:
    return re.sub(r"\d\.\d{3}|inf", "", line)


@pytest.mark.slow
@pytest.mark.parametrize("title", ["Stable Diffusion 1.5", "DPM++ 2M SDE Karras, linspace"])
@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize("karras", [False, True])
def test_sampler_calls_the_denoiser_where_the_noise_is_what_the_timestep_says(
    title: str, name: str, karras: bool
) -> None:
    """A denoiser that knows the picture to 2 % leaves in it what noise it was not told of."""
    checkpoint = CHECKPOINTS[title]
    schedulers = Schedulers(checkpoint.base)
    for kind, steps, strength in [
        (Kind.TEXT2IMG, 1, 1.0),
        (Kind.TEXT2IMG, 12, 1.0),
        (Kind.IMG2IMG, 20, 0.5),
    ]:
        scheduler = schedulers.make(spec(name, kind, steps, strength, karras=karras))
        assert residual(checkpoint, kind, scheduler, steps, strength, spread=0.02) <= LIMIT


@pytest.mark.parametrize(
    ("title", "kind", "name"),
    [
        pytest.param(
            title, kind, name,
            id=f"{name}-{kind.value}-{title}",
            marks=[pytest.mark.long] * ((number + at + which) % 2),
        )
        for which, title in enumerate(list(CHECKPOINTS)[:2])
        for at, kind in enumerate(Kind)
        for number, name in enumerate(SAMPLERS)
    ],
)  # fmt: skip
def test_loop_is_that_of_the_stock_pipelines(title: str, kind: Kind, name: str) -> None:
    checkpoint = CHECKPOINTS[title]
    steps, strength = 6, 1.0 if kind is Kind.TEXT2IMG else 0.7
    asked = spec(name, kind, steps, strength, karras=True)
    schedulers = Schedulers(checkpoint.base)
    pictures = Pictures.of(kind, strength)
    denoiser = Denoiser(checkpoint.base, pictures.wanted, spread=0.5)
    ours = paint(checkpoint, kind, schedulers.make(asked), steps, strength, denoiser)
    stock = _stock(checkpoint.family, kind, schedulers.make(asked), denoiser)
    arguments: dict[str, object] = {
        Kind.TEXT2IMG: {"height": 64, "width": 64},
        Kind.IMG2IMG: {"image": pictures.init.float(), "strength": strength},
        Kind.INPAINT: {
            "image": pictures.init.float(),
            "masked_image_latents": pictures.init.float(),
            "mask_image": pictures.mask.repeat_interleave(8, -1).repeat_interleave(8, -2),
            "strength": strength,
            "height": 64,
            "width": 64,
        },
    }[kind]
    result = stock(
        prompt_embeds=torch.zeros(1, 1, 8),
        guidance_scale=1.0,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(1),
        output_type="latent",
        **arguments,
    )
    torch.testing.assert_close(ours, result.images, atol=1e-5, rtol=1e-5)


def spec(
    name: str, kind: Kind, steps: int, strength: float, *, karras: bool = False
) -> GenerationSpec:
    return GenerationSpec(
        model_id="m", kind=kind, prompt="", height=64, width=64, steps=steps, strength=strength,
        scheduler=name, use_karras_sigmas=karras, seed=0,
    )  # fmt: skip


class _Unet(torch.nn.Module):
    """A UNet whose forward is the denoiser."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.dtype, self.device = torch.float32, torch.device("cpu")
        self.config = FrozenDict(in_channels=4, sample_size=8, time_cond_proj_dim=None)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, **_: object):
        return (self.denoiser(sample, timestep),)


def _stock(family: str, kind: Kind, scheduler: SchedulerMixin, denoiser: Denoiser):
    pipeline = FAMILIES[family].pipelines[kind](
        vae=random_vae(), text_encoder=None, tokenizer=None, unet=_Unet(denoiser),
        scheduler=scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
