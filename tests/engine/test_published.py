"""Each layout of `docs/formats.md` paints as stock does, or is refused as it says there."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.engine.published.cases import CASES
from tests.engine.published.files import checkpoint
from tests.engine.published.models import small_architectures
from tests.engine.published.workshop import Case, Served, Workshop

# peft warns of a second adapter, which is what is wanted.
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")

TOLD = json.loads((Path(__file__).parents[1] / "data" / "formats.json").read_text())


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with small_architectures():
        shop = Workshop(tmp_path_factory.mktemp("published"))
        yield shop
        shop.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_layout_paints_as_stock_or_is_refused(shop: Workshop, name: str) -> None:
    """If a text differs: `python -m tests.engine.published`, and `tests.meta.formats` again."""
    row, told = shop.row(CASES[name]), TOLD[name]
    assert (row.layout, row.found, row.served) == (told["layout"], told["found"], told["served"])
    assert row.refused == told["refused"]
    if not row.refused:
        assert row.difference is not None
        assert row.difference <= CASES[name].bound


def test_page_has_every_layout() -> None:
    assert TOLD.keys() == CASES.keys()
    assert all((row["difference"] is None) == bool(row["refused"]) for row in TOLD.values())


def test_weights_that_differ_a_little_would_be_seen(shop: Workshop) -> None:
    def half_a_layer(workshop: Workshop) -> Served:
        stock = workshop.models.stock("sd1")
        tensors = checkpoint(stock)
        name = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_v.weight"
        return Served(workshop.write(tensors | {name: tensors[name] / 2}), stock)

    row = shop.row(Case("", "", half_a_layer))
    assert row.difference is not None
    assert row.difference > 10 * CASES["sd1"].bound
    assert torch.get_num_threads() == 1
