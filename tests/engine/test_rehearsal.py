"""On a pretended device the painter paints what it paints on the CPU, and no step waits for it.

A tensor of the CPU that meets one of the device raises there, as it would on a GPU.
"""

from collections.abc import Iterator

import pytest
import torch

from serve_app.pipelines.samplers.names import SAMPLERS
from serve_app.types import Kind
from tests.pretended_device import DEVICE, pretended
from tests.rehearsal import FEATURES, Rehearsal, demo, images_of, random, spec_of

_KINDS = list(Kind)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    with pytest.MonkeyPatch.context() as patch, random(patch, tmp_path_factory.mktemp("m")) as made:
        yield made


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    with pytest.MonkeyPatch.context() as patch, demo(patch, tmp_path_factory.mktemp("d")) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("name", [name for name in SAMPLERS if SAMPLERS[name].runs == name])
def test_no_step_of_a_sampler_waits_for_the_device(small: Rehearsal, name: str, kind: Kind) -> None:
    spec = spec_of(model_id="random", scheduler=name, kind=kind)
    cost = small.cost(spec, images_of(spec))
    assert cost.step_waits == 0, cost.places
    assert cost.difference <= 1
    assert cost.request_waits <= 11


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FEATURES))
def test_no_step_of_a_feature_waits_for_the_device(trained: Rehearsal, name: str) -> None:
    spec = spec_of(**FEATURES[name])
    cost = trained.cost(spec, images_of(spec))
    assert cost.step_waits == 0, cost.places
    assert cost.difference <= 1


def test_device_refuses_what_a_real_one_refuses_and_counts_what_it_waits_for() -> None:
    with pytest.MonkeyPatch.context() as patch, pretended(patch) as ledger, torch.no_grad():
        there = torch.arange(6, dtype=torch.float32, device=DEVICE).view(2, 3)
        with pytest.raises(RuntimeError, match="two devices"):
            there + torch.ones(2, 3)
        assert ledger.totals()[1:] == (0, 0)
        total = there.sum() + torch.tensor(1.0)  # a number of the CPU may go along
        assert float(total) == 16.0
        torch.ones(3).to(DEVICE)
        torch.ones(3).to(DEVICE, non_blocking=True)
        assert there.cpu().tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
        assert ledger.totals()[1:] == (1, 3)
