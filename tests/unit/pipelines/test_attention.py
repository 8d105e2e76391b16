"""Attention that remembers what its processors may be given."""

import inspect
import logging

import pytest
import torch
from diffusers.models import attention_processor
from diffusers.models.transformers import transformer_flux

from serve_app.pipelines.attention import remember_parameters


@pytest.fixture
def read(monkeypatch):
    """What signatures were read of, from now on."""
    for module in (attention_processor, transformer_flux):
        monkeypatch.setattr(module, "inspect", inspect)
    found, signature = [], inspect.signature
    monkeypatch.setattr(inspect, "signature", lambda of: found.append(of) or signature(of))
    return found


def predict(unet, **arguments):
    generator = torch.Generator().manual_seed(0)
    sample, texts = (torch.randn(2, *shape, generator=generator) for shape in ((4, 4, 4), (7, 12)))
    return unet(sample, torch.full((2,), 500.0), texts, **arguments)[0]


def test_signatures_are_read_once_a_class(unet, read):
    before = predict(unet)
    assert len(read) == 8, "two in each of four blocks"
    remember_parameters()
    remember_parameters()
    read.clear()
    for _ in range(2):
        assert predict(unet).equal(before)
    assert len(read) == 1


def test_what_processors_do_not_know_is_left_out_with_a_warning(unet, read, caplog):
    remember_parameters()
    before = predict(unet)
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)
    level = logger.level
    logger.setLevel(logging.WARNING)
    after = predict(unet, cross_attention_kwargs={"unheard_of": 1})
    logger.setLevel(level)
    logger.removeHandler(caplog.handler)
    assert after.equal(before)
    assert "['unheard_of'] are not expected by AttnProcessor2_0" in caplog.text


def test_signature_of_what_is_no_method_is_read_anew(read):
    remember_parameters()
    for _ in range(2):
        found = attention_processor.inspect.signature(predict)
        assert list(found.parameters) == ["unet", "arguments"]
    assert len(read) == 2
    assert attention_processor.inspect.isfunction(predict)


def test_module_that_reads_no_signatures_any_more_is_left_alone(read, monkeypatch):
    monkeypatch.delattr(transformer_flux, "inspect")
    remember_parameters()
    assert not hasattr(transformer_flux, "inspect")
    assert attention_processor.inspect is not inspect
