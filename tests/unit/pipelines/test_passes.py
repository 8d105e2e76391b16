"""How far a picture of two passes is, told by a pipeline that only counts its steps."""

from types import SimpleNamespace

import pytest
import torch

from serve_app.engine.request import Progress
from serve_app.pipelines.samplers.solvers import SOLVERS
from serve_app.pipelines.work import Sample
from serve_app.types import Kind
from tests.builders import spec


class Counting:
    """Takes as many steps as a stock pipeline does. calls: of the denoiser in a step."""

    def __init__(self, kind, calls, told):
        self.kind, self.calls, self.told = kind, calls, told

    def __call__(self, prompt, num_inference_steps, callback_on_step_end, strength=1.0, image=None):
        assert (image is None) is (self.kind is Kind.TEXT2IMG)
        self.num_timesteps = self.calls * int(num_inference_steps * strength)
        for step in range(self.num_timesteps):
            given = callback_on_step_end(self, step, None, {"latents": torch.zeros(1, 4, 8, 8)})
            assert given == {}, "latents stay as they are"
            self.told()
        return (torch.zeros(1, 3, 64, 64),)


@pytest.mark.parametrize(
    ("steps", "share", "calls", "total"),
    [
        pytest.param(20, 0.35, 1, 27, id="a third"),
        pytest.param(20, 0.35, 2, 54, id="two calls a step"),
        pytest.param(5, 0.5, 2, 14, id="rounded down"),
        pytest.param(4, 0.01, 1, 5, id="one step at least"),
    ],
)
def test_steps_of_both_passes_are_counted_from_the_first_on(
    monkeypatch, steps, share, calls, total
):
    seen, progress = [], Progress()
    make = SOLVERS["DDIMScheduler"]
    checkpoint = SimpleNamespace(
        embeddings=SimpleNamespace(load=lambda _: None),
        native_px=64,
        multiple_px=8,
        is_inpaint_only=False,
        guidance_rescale=0.0,
        config=SimpleNamespace(highres_strength=share),
        schedulers=SimpleNamespace(make=lambda _: make()),
        pipeline=lambda kind, *_: Counting(
            kind, calls, lambda: seen.append((progress.done, progress.total))
        ),
    )
    monkeypatch.setattr(Sample, "_text", lambda *_: {"prompt": ""})
    asked = spec(height=128, width=128, highres_fix=True, steps=steps)
    Sample(checkpoint, asked, None, (128, 128), make(), None, progress)()
    assert seen == [(step, total) for step in range(1, total + 1)]
