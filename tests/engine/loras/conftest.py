"""A random model, and LoRAs that are added to its catalogue."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from serve_app.models import AddOn
from tests.engine.lora_files import save
from tests.engine.loras.strengths import Tensors, stock_of
from tests.engine.test_families import make_xl
from tests.engine.weaving import Weaver


@pytest.fixture(scope="module")
def base(folder: Callable[[str], Path]) -> DiffusionPipeline:
    return stock_of(folder("attention"))


@pytest.fixture(scope="module")
def weaver(folder: Callable[[str], Path]) -> Iterator[Weaver]:
    weaver = Weaver(folder("attention"), [])
    yield weaver
    weaver.engine.close()


@pytest.fixture
def known(weaver: Weaver) -> Iterator[list[AddOn]]:
    weaver.known.clear()
    yield weaver.known
    weaver.known.clear()


@pytest.fixture
def add(known: list[AddOn], tmp_path: Path) -> Callable[..., None]:
    """Add a LoRA to the catalogue by its tensors and header."""

    def add(name: str, tensors: Tensors, **header: str) -> None:
        file = save(tensors, tmp_path / f"{name}.safetensors", **header)
        known.append(AddOn(id=name, type="lora", source=file))

    return add


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("xl")
    make_xl().save_pretrained(folder)
    return folder
