"""XL, SD3 and Flux through the same engine: equal to the stock pipelines, in shared forwards."""

from collections.abc import Callable, Iterator
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from PIL import Image
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from serve_app import errors
from serve_app.config import EngineConfig
from serve_app.engine.engine import Engine
from serve_app.engine.request import Progress, Request
from serve_app.models import ModelEntry
from serve_app.pipelines.addons.variants import Variant
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.compose import Canvas
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.pipelines.work import Painting, Sample
from serve_app.testing.checkpoints import byte_tokenizer
from serve_app.types import GenerationSpec, Kind
from tests.engine.whole_vaes import whole

TOLERANCE = 1e-4


def clip_config() -> CLIPTextConfig:
    tokenizer = byte_tokenizer()
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def small_vae(**options: object) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=32,
        **options,
    )


def make_xl() -> DiffusionPipeline:
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(16, 32),
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=64,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=small_vae(latent_channels=4),
        text_encoder=CLIPTextModel(clip_config()),
        text_encoder_2=CLIPTextModelWithProjection(clip_config()),
        tokenizer=byte_tokenizer(),
        tokenizer_2=byte_tokenizer(),
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
    )


def make_sd3() -> DiffusionPipeline:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=16,
        patch_size=1,
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        out_channels=16,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=small_vae(latent_channels=16, shift_factor=0.06, scaling_factor=1.5),
        text_encoder=CLIPTextModelWithProjection(clip_config()),
        tokenizer=byte_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(clip_config()),
        tokenizer_2=byte_tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    )


def make_flux(latent_channels: int = 1) -> DiffusionPipeline:
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * latent_channels,  # packed, two by two cells
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8],
        guidance_embeds=True,
    )
    t5 = T5Config(d_model=32, d_ff=37, d_kv=8, num_layers=2, num_heads=4, vocab_size=600)
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=small_vae(latent_channels=latent_channels, shift_factor=0.06, scaling_factor=1.5),
        text_encoder=CLIPTextModel(clip_config()),
        tokenizer=byte_tokenizer(),
        text_encoder_2=T5EncoderModel(t5),
        tokenizer_2=byte_tokenizer(),
        transformer=transformer,
    )


FAMILIES = {"xl": make_xl, "sd3": make_sd3, "flux": make_flux}


@pytest.fixture(scope="module", params=list(FAMILIES))
def family_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp(request.param)
    FAMILIES[request.param]().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(EngineConfig(turn_groups=3, measure_rows=False))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def painter(family_folder: Path) -> Iterator[WeavePainter]:
    config = EngineConfig(device="cpu", measure_rows=False)
    entry = ModelEntry(id="random", source=family_folder, kinds=tuple(Kind), native_size_px=64)
    painter = WeavePainter(entry, config, load_checkpoint(entry, config))
    yield painter
    painter.close()


@pytest.mark.slow
def test_engine_family_equals_stock_for_every_kind(
    family_folder: Path,
    engine: Engine,
    canvas: Canvas,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    entry = ModelEntry(id="random", source=family_folder, kinds=tuple(Kind))
    checkpoint = load_checkpoint(entry, EngineConfig(device="cpu"))
    specs = [
        make_spec(
            kind=kind,
            seed=number,
            steps=3 + number % 3,
            strength=0.7,
            guidance_scale=(1.0, 4.0)[number % 2],
            negative_prompt=("", "blurry")[number // 3 % 2],
            scheduler="EulerDiscreteScheduler",
        )
        for number, kind in enumerate([*Kind, *Kind])
    ]
    futures = [engine.submit(request_of(checkpoint, spec, canvas)) for spec in specs]
    vae = whole(checkpoint.base.vae)
    for spec, future in zip(specs, futures, strict=True):
        painting = future.result(60)
        assert isinstance(painting, Painting)
        expected = paint_stock(checkpoint, spec, canvas, vae=vae)
        assert float((painting.image - expected).abs().max()) <= TOLERANCE, spec
    counts = engine.snapshot()
    assert counts.rows > 2 * counts.forwards


@pytest.mark.slow
async def test_effects_of_a_unet_are_refused_by_a_transformer(
    painter: WeavePainter, make_spec: Callable[..., GenerationSpec]
) -> None:
    for field in ("panorama", "self_attention"):
        spec = make_spec(width=96, scheduler="EulerDiscreteScheduler", **{field: True})
        if painter._checkpoint.family.denoiser == "unet":
            assert (await painter.paint(1, spec, None)).ran == {}
            continue
        with pytest.raises(errors.InvalidRequest) as caught:
            await painter.paint(1, spec, None)
        assert caught.value.field == field


@pytest.mark.slow
async def test_highres_fix_works_for_every_family(
    painter: WeavePainter, make_spec: Callable[..., GenerationSpec]
) -> None:
    spec = make_spec(height=128, width=128, highres_fix=True, scheduler="EulerDiscreteScheduler")
    result = await painter.paint(1, spec, None)
    assert result.ran.get("first_pass") == [64, 64]


CHANGES: dict[str, dict[str, object]] = {
    "tomesd": {"tomesd": True},
    "clip_skip": {"clip_skip": 2},
    "negative_prompt": {"negative_prompt": "a blue circle on a green ground"},
}


@pytest.mark.slow
@pytest.mark.parametrize("field", CHANGES)
async def test_what_changes_no_picture_is_said_to_have_not_run(
    painter: WeavePainter, make_spec: Callable[..., GenerationSpec], field: str
) -> None:
    base = make_spec(scheduler="EulerDiscreteScheduler", steps=4)
    plain = await painter.paint(1, base, None)
    changed = await painter.paint(2, base.model_copy(update=CHANGES[field]), None)
    is_same = plain.pictures[0].data == changed.pictures[0].data
    assert (field in changed.ran) is is_same


def request_of(checkpoint: Checkpoint, spec: GenerationSpec, canvas: Canvas) -> Request:
    size = (spec.height, spec.width)
    body = Sample(
        checkpoint=checkpoint,
        spec=spec,
        canvas=None if spec.kind is Kind.TEXT2IMG else canvas,
        size=size,
        scheduler=checkpoint.schedulers.make(spec),
        variant=Variant(),
        progress=Progress(),
    )
    return Request(body, key=size)


def paint_stock(
    checkpoint: Checkpoint, spec: GenerationSpec, canvas: Canvas, **parts: object
) -> torch.Tensor:
    cls = checkpoint.family.pipelines[spec.kind]
    pipeline = cls.from_pipe(checkpoint.base, **parts)
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    pictures: dict[str, int | float | Image.Image | None] = {"height": 64, "width": 64}
    if spec.kind is not Kind.TEXT2IMG:
        pictures |= {"image": canvas.init, "strength": spec.strength}
    if spec.kind is Kind.IMG2IMG and "XL" in cls.__name__:
        del pictures["height"], pictures["width"]
    if spec.kind is Kind.INPAINT:
        pictures["mask_image"] = canvas.mask
    if "Flux" not in cls.__name__:
        pictures["negative_prompt"] = spec.negative_prompt or None  # type: ignore[assignment]
    result = pipeline(
        prompt=spec.prompt,
        num_inference_steps=spec.steps,
        guidance_scale=spec.guidance_scale,
        generator=torch.Generator().manual_seed(spec.seed),
        output_type="pt",
        **pictures,
    )
    return result.images[0]
