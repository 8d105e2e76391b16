"""LoRAs as an argument of a denoiser's twin, as it is: no graph, so it takes no time."""

from collections.abc import Callable, Iterator
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline

from serve_app.models import AddOn
from serve_app.pipelines.addons.lora_file import Pair
from serve_app.pipelines.addons.lora_layers import LoraLayers
from serve_app.pipelines.addons.lora_places import placed
from serve_app.pipelines.addons.lora_set import NO_LORAS, Adapter, LoraSet
from serve_app.pipelines.addons.lora_twin import ROW_PAIRS, RowPairs, take_pairs
from serve_app.pipelines.addons.loras import LORA_ROWS
from serve_app.types import GenerationSpec
from tests.engine.lora_files import LAYERS, kohya, make, save
from tests.engine.loras.strengths import using
from tests.engine.weaving import Weaver

MakeSpec = Callable[..., GenerationSpec]
ROOM = 2**30
ATTENTION = tuple(name for name in LAYERS["unet"] if ".attn" in name)


@pytest.fixture(scope="module")
def base(folder: Callable[[str], Path]) -> DiffusionPipeline:
    return diffusers.StableDiffusionPipeline.from_pretrained(
        folder("attention"), safety_checker=None
    )


@pytest.fixture(scope="module")
def weaver(
    folder: Callable[[str], Path], base: DiffusionPipeline, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Weaver]:
    root = tmp_path_factory.mktemp("loras")
    made = {
        "attention": make(base, {"unet": ATTENTION}),
        "text": make(base, {"text_encoder": LAYERS["text_encoder"]}),
    }
    files = {name: save(kohya(own), root / f"{name}.safetensors") for name, own in made.items()}
    add_ons = [AddOn(id=name, type="lora", source=file) for name, file in files.items()]
    own = Weaver(folder("attention"), add_ons)
    yield own
    own.engine.close()


def adapter(layers: LoraLayers, base: DiffusionPipeline, names: tuple[str, ...]) -> Adapter:
    made = make(base, {"unet": names})
    pairs = {layer: Pair(own.down, own.up) for (_, layer), own in made.items()}
    return Adapter(names[-1], names[-1], {"unet": layers.packed(pairs)})


@pytest.mark.parametrize("end", ["attention", "matrices"])
@torch.inference_mode()
def test_last_layer_before_an_end_is_changed(base: DiffusionPipeline, end: str) -> None:
    places = placed(base.unet)
    matrices = [name for name, one in places.items() if one.layer.weight[0, 0].numel() == 1]
    attention = [name for name in matrices if ".attn" in name]
    name = (attention if end == "attention" else matrices)[-1]
    layers = LoraLayers("unet", base.unet)
    row_pairs = RowPairs(layers, ROOM).of([LoraSet(1, ((adapter(layers, base, (name,)), 1.0),))])
    twin = diffusers.UNet2DConditionModel.from_config(base.unet.config)
    twin.load_state_dict(base.unet.state_dict())
    take_pairs(twin)
    layer, seen = twin.get_submodule(name), list[torch.Tensor]()
    layer.register_forward_hook(lambda _, inputs, output: seen.extend((inputs[0], output)))
    twin(torch.randn(1, 4, 8, 8), 5, torch.randn(1, 7, 32), row_pairs=row_pairs)
    x, output = seen
    own = make(base, {"unet": (name,)})["unet", name].product()
    expected = torch.nn.functional.linear(x, layer.weight + own.view_as(layer.weight), layer.bias)
    assert torch.allclose(output, expected, atol=1e-5)


def test_sets_of_other_files_and_layers_have_arguments_of_one_shape(
    base: DiffusionPipeline,
) -> None:
    layers = LoraLayers("unet", base.unet)
    pairs = RowPairs(layers, ROOM)
    names = [name for name in layers.places if ".attn" in name]
    adapters = [adapter(layers, base, chosen) for chosen in ((names[0],), (names[-1], names[3]))]
    shapes = []
    for number, own in enumerate(adapters, 1):
        sets = [LoraSet(number, ((own, 1.0),)), NO_LORAS]
        outline = pairs.outline(sets)
        assert outline is not None
        shapes += [[one.shape for one in made] for made in (outline, pairs.of(sets))]
    assert shapes == [shapes[0]] * 4


def forward(weaver: Weaver, make_spec: MakeSpec, lora: str) -> dict[str, object]:
    """Return a denoiser's arguments with the marks of two rows; the set is held by the request."""
    request = weaver.request(make_spec(loras=using((lora, 1))))
    number = request.body.loras.number
    marks = torch.tensor([number, 0])
    return {"sample": torch.zeros(2, 4, 8, 8), LORA_ROWS: marks, "request": request}


def test_lora_of_texts_alone_runs_in_the_graph_of_none(weaver: Weaver, make_spec: MakeSpec) -> None:
    arguments = forward(weaver, make_spec, "text")
    run = weaver.checkpoint.loras.reading(
        lambda own: ("compiled", ROW_PAIRS in own), lambda _: "as it is", lambda _: True
    )
    assert run(arguments) == ("compiled", False)


def test_matrices_of_a_graph_that_found_no_memory_are_let_go(
    weaver: Weaver, make_spec: MakeSpec
) -> None:
    """The engine runs fewer rows then, and may fail them; the memory is needed."""
    given = list[torch.Tensor]()

    def fail(arguments: dict[str, object]) -> object:
        given.extend(arguments[ROW_PAIRS])  # type: ignore[arg-type]
        raise torch.OutOfMemoryError

    loras = weaver.checkpoint.loras
    with pytest.raises(torch.OutOfMemoryError):
        loras.reading(fail, fail, lambda _: True)(forward(weaver, make_spec, "attention"))
    assert given
    assert loras._row_pairs._made is None
