"""Where token merging acts, against tomesd's own word: it merges or it does not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tomesd
from tomesd import merge

from serve_app.config import EngineConfig
from serve_app.models import ModelEntry
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.types import GenerationSpec, Kind


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.5, 0.0])
@pytest.mark.parametrize("name", ["attention", "plain", "deep"])
async def test_tomesd_is_said_to_have_run_where_tokens_were_merged(
    folder: Callable[[str], Path],
    make_spec: Callable[..., GenerationSpec],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    ratio: float,
) -> None:
    merged = []
    match = merge.bipartite_soft_matching_random2d

    def count(*args: object, **options: object) -> object:
        functions = match(*args, **options)
        merged.append(functions[0] is not merge.do_nothing)
        return functions

    monkeypatch.setattr(tomesd.patch.merge, "bipartite_soft_matching_random2d", count)
    entry = ModelEntry(id="random", source=folder(name), kinds=tuple(Kind), native_size_px=64)
    config = EngineConfig(device="cpu", measure_rows=False, tomesd_ratio=ratio)
    painter = WeavePainter(entry, config, load_checkpoint(entry, config))
    ran = [(await painter.paint(n, make_spec(tomesd=bool(n)), None)).ran for n in range(2)]
    painter.close()
    assert ran == [{}, {} if any(merged) else {"tomesd": "no"}]
    assert any(merged) is (name == "attention" and ratio > 0)
