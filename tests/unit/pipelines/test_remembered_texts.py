"""Texts that stock pipelines encode as they are: once for each state of the encoders."""

from contextlib import contextmanager

import torch

from serve_app.pipelines.text.encoding import TextCache, TextState, remember_encoding


class Pipeline:
    """Notes what it encodes, and in which state."""

    def __init__(self, cache, key):
        self.encoded = []
        self.state = "as trained"

        @contextmanager
        def entered():
            self.state = key
            yield
            self.state = "as trained"

        remember_encoding(self, cache, TextState(key, entered))

    def encode_prompt(self, prompt, clip_skip=None, prompt_embeds=None):
        self.encoded.append((prompt, clip_skip, self.state))
        return (torch.zeros(1),)


def test_text_is_encoded_once_in_each_state_and_in_it():
    cache, encoded = TextCache(8), []
    for key in ("ink", "gold", "ink"):
        pipeline = Pipeline(cache, key)
        pipeline.encode_prompt("a cat", clip_skip=2)
        encoded += pipeline.encoded
        assert pipeline.state == "as trained"
    assert encoded == [("a cat", 2, "ink"), ("a cat", 2, "gold")]


def test_all_that_a_call_says_counts_however_it_is_said():
    pipeline = Pipeline(TextCache(8), "ink")
    first = pipeline.encode_prompt("a cat", 1)
    assert pipeline.encode_prompt(clip_skip=1, prompt="a cat") is first
    assert pipeline.encode_prompt("a cat", 2) is not first
    assert pipeline.encode_prompt("a cat") is not first
    assert len(pipeline.encoded) == 3


def test_embeddings_that_are_given_are_not_looked_up():
    pipeline = Pipeline(TextCache(8), "ink")
    for _ in range(2):
        pipeline.encode_prompt(None, prompt_embeds=torch.zeros(1))
    assert pipeline.encoded == [(None, None, "as trained")] * 2
