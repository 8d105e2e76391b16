"""LoRAs in compiled forwards of XL and Flux, against stock with changed weights."""

from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch

from serve_app.models import AddOn
from serve_app.types import GenerationSpec
from tests.engine.lora_files import kohya, make, save
from tests.engine.lora_files import peft as in_peft_names
from tests.engine.loras.strengths import plus, using
from tests.engine.loras.test_families import FLUX_LAYERS, XL_NAMES, layers_of
from tests.engine.loras.test_graphs import COMPILED, paint, wait
from tests.engine.test_families import make_flux
from tests.engine.weaving import TOLERANCE, Weaver, changed, difference, paint_stock

MakeSpec = Callable[..., GenerationSpec]


def painted_compiled(folder: Path, lora: Path, spec: GenerationSpec) -> torch.Tensor:
    """Paint with a LoRA in a graph, which first has to be compiled."""
    weaver = Weaver(folder, [AddOn(id="ink", type="lora", source=lora)], COMPILED)
    weaver.checkpoint.compiled.start()
    paint(weaver, spec)
    wait(weaver)
    (picture,), forwards, compiled = paint(weaver, spec)
    weaver.checkpoint.compiled.stop()
    weaver.engine.close()
    assert compiled == forwards > 0
    return picture


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_lora_of_xl_runs_compiled(xl: Path, tmp_path: Path, make_spec: MakeSpec) -> None:
    base = diffusers.StableDiffusionXLPipeline.from_pretrained(xl)
    made = make(base, layers_of(base))
    spec = make_spec(loras=using(("ink", 1)))
    woven = painted_compiled(xl, save(kohya(made, XL_NAMES), tmp_path / "ink.safetensors"), spec)
    assert difference(woven, paint_stock(changed(base, plus(made, 1)), spec)) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_lora_of_flux_runs_compiled(tmp_path: Path, make_spec: MakeSpec) -> None:
    torch.manual_seed(5)
    make_flux().save_pretrained(tmp_path / "flux")
    base = diffusers.FluxPipeline.from_pretrained(tmp_path / "flux")
    made = make(base, FLUX_LAYERS)
    spec = make_spec(loras=using(("ink", 1)), scheduler="FlowMatchEulerDiscreteScheduler")
    file = save(in_peft_names(made), tmp_path / "ink.safetensors")
    served = spec.model_copy(update={"scheduler": "EulerDiscreteScheduler"})
    woven = painted_compiled(tmp_path / "flux", file, served)
    assert difference(woven, paint_stock(changed(base, plus(made, 1)), spec)) <= TOLERANCE
