"""Measures every layout, into `tests/data/formats.json`: `python -m tests.engine.published`."""

import dataclasses
import json
import tempfile
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from tests.engine.published.cases import CASES
from tests.engine.published.models import small_architectures
from tests.engine.published.workshop import Workshop


def main() -> None:
    """Write a row for each case, by name."""
    torch.set_num_threads(1)
    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()
    with small_architectures(), tempfile.TemporaryDirectory() as root:
        shop = Workshop(Path(root))
        rows = {name: dataclasses.asdict(shop.row(case)) for name, case in CASES.items()}
        shop.close()
    file = Path(__file__).parents[2] / "data" / "formats.json"
    file.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
