"""Translation and expansion of prompts, by tiny models with random weights."""

import io
import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
)

from serve_app import errors
from serve_app.config import AppConfig, EngineConfig
from serve_app.models import ModelEntry
from serve_app.pipelines.text.rewrite import Rewriter, rewriter_of
from serve_app.testing.checkpoints import write_random_inpaint
from serve_app.testing.painter import load_painter
from serve_app.types import Kind
from tests.builders import spec

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "eine", "Katze", "a", "cat", "sharp", "soft", "red"]


def save_tokenizer(folder: Path) -> None:
    words = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("translator")
    torch.manual_seed(3)
    config = BartConfig(
        vocab_size=len(WORDS), d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, max_position_embeddings=32, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=2,
    )  # fmt: skip
    BartForConditionalGeneration(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A translator of the kind that is published most, with the pieces of one sentence."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("marian")
    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["eine Katze", "a cat"]), model_writer=pieces, vocab_size=13,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", minloglevel=9,
    )  # fmt: skip
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(pieces.getvalue())
    read = sentencepiece.SentencePieceProcessor(model_proto=pieces.getvalue())
    vocabulary = {read.id_to_piece(number): number for number in range(read.vocab_size())}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "MarianTokenizer"}')
    config = MarianConfig(
        vocab_size=len(vocabulary), d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, max_position_embeddings=32, pad_token_id=0, eos_token_id=1,
        decoder_start_token_id=0, forced_eos_token_id=1,
    )  # fmt: skip
    MarianMTModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expander(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("expander")
    torch.manual_seed(9)
    config = GPT2Config(
        vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=32,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def rewriter(translator: Path, expander: Path) -> Rewriter:
    return rewriter_of(translator, expander, 6)


def test_only_the_clients_words_are_translated(rewriter: Rewriter) -> None:
    asked = spec(prompt="sks eine Katze sharp", foreign="eine Katze")
    prompt = rewriter.apply(asked).prompt
    assert prompt.startswith("sks ")
    assert prompt.endswith(" sharp")
    assert "Katze sharp" not in prompt
    assert rewriter.apply(asked).prompt == prompt


def test_expansion_appends_and_is_the_same_every_time(rewriter: Rewriter) -> None:
    asked = spec(prompt="a red cat, 8K", expand=True)
    prompt = rewriter.apply(asked).prompt
    assert prompt.startswith("a red cat, 8K ")
    assert rewriter.apply(asked).prompt == prompt


def test_prompt_that_leaves_no_room_is_not_expanded(rewriter: Rewriter) -> None:
    asked = spec(prompt="cat " * 30, expand=True)
    assert rewriter.apply(asked) == asked
    assert rewriter.apply(spec(prompt="", expand=True)).prompt == ""


def test_text_too_long_for_the_translator_is_refused(rewriter: Rewriter) -> None:
    with pytest.raises(errors.InvalidRequest, match="too long"):
        rewriter.apply(spec(prompt="eine " * 40, foreign="eine " * 40))


def test_without_models_prompts_stay_and_translation_is_refused() -> None:
    rewriter = rewriter_of(None, None, 6)
    asked = spec(expand=True)
    assert rewriter.apply(asked) == asked
    with pytest.raises(errors.InvalidRequest) as caught:
        rewriter.apply(spec(foreign="eine Katze"))
    assert caught.value.field == "multi_lingual"


def test_models_of_a_process_are_shared(translator: Path, expander: Path) -> None:
    assert rewriter_of(translator, expander, 6) is rewriter_of(translator, expander, 6)


def test_relative_folders_start_at_the_root(tmp_path: Path) -> None:
    engine = EngineConfig(translator=Path("t"), expander=Path("e"))
    config = AppConfig(root_dir=tmp_path, engine=engine)
    assert config.engine.translator == tmp_path / "t"
    assert config.engine.expander == tmp_path / "e"


async def test_painter_tells_the_prompt_that_ran(tmp_path: Path, expander: Path) -> None:
    write_random_inpaint(tmp_path)
    entry = ModelEntry(id="tiny", source=tmp_path, kinds=(Kind.TEXT2IMG,), native_size_px=64)
    config = EngineConfig(device="cpu", measure_rows=False, expander=expander, expander_tokens=6)
    painter = load_painter(entry, config)
    result = await painter.paint(1, spec(prompt="a red cat, 8K", expand=True), None)
    plain = await painter.paint(2, spec(), None)
    painter.close()
    assert str(result.ran["prompt"]).startswith("a red cat, 8K ")
    assert "prompt" not in plain.ran


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_translator_of_the_marian_family_translates(marian):
    rewriter = rewriter_of(marian, None, 8)
    written = rewriter.apply(spec(prompt="eine Katze, red", foreign="eine Katze"))
    assert written.prompt.endswith(", red")
    assert "Katze" not in written.prompt


def test_start_names_the_package_that_a_translator_lacks(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise ImportError("\nMarianTokenizer requires the SentencePiece library. Check out")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", refuse)
    rewriter_of.cache_clear()
    with pytest.raises(
        ImportError, match=r"SentencePiece.*pip install 'dreamserve\[translation\]'"
    ):
        rewriter_of(tmp_path, None, 8)
