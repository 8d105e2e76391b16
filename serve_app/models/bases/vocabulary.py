"""The vocabulary of CLIP's tokenizer, which single files of models lack.

open_clip ships it. Its file is read; the package is not imported, which would load torchvision.
"""

import functools
import gzip
import importlib.util
from pathlib import Path

__all__ = ["VocabularyMissing", "clip_vocabulary"]

_PACKAGE, _FILE = "open_clip", "bpe_simple_vocab_16e6.txt.gz"
_NUM_TOKENS = 49408
_SPECIAL = ["<|startoftext|>", "<|endoftext|>"]
_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
_PRINTABLE += range(ord("®"), ord("ÿ") + 1)


class VocabularyMissing(ValueError):
    """No package that is installed ships it."""


@functools.cache
def clip_vocabulary() -> tuple[dict[str, int], list[str]]:
    """Return the number of each token, and the merges, the most urgent first.

    Tokens are the 256 bytes as characters, the same at the end of a word, and what the merges make,
    in this order. Source: the tokenizer of https://github.com/openai/CLIP.

    Raises:
        VocabularyMissing: open_clip is not installed.
    """
    lines = gzip.decompress(_path().read_bytes()).decode("utf-8").splitlines()
    characters = _characters()
    num_merges = _NUM_TOKENS - len(_SPECIAL) - 2 * len(characters)
    merges = lines[1 : num_merges + 1]  # the first line is a title; the rest was never used
    tokens = [*characters, *(f"{character}</w>" for character in characters)]
    tokens += ["".join(merge.split()) for merge in merges] + _SPECIAL
    return {token: number for number, token in enumerate(tokens)}, merges


def _path() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (path := Path(folder) / _FILE).is_file():
            return path
    raise VocabularyMissing(
        "a single file has no tokenizer, and CLIP's vocabulary is not installed: "
        "`pip install --no-deps open_clip_torch`, or name a folder that has one as base_config"
    )


def _characters() -> list[str]:
    """Return a visible character for each byte; those without one get the next from 256 on."""
    invisible = [byte for byte in range(256) if byte not in _PRINTABLE]
    return [chr(byte) for byte in _PRINTABLE] + [chr(256 + n) for n in range(len(invisible))]
