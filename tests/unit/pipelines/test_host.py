"""Which copies are kept in CPU memory."""

from types import SimpleNamespace

import pytest
import torch

from serve_app.pipelines.host import HostCopies


def pipeline(num_bytes):
    module = torch.nn.Module()
    module.register_buffer("weights", torch.zeros(num_bytes, dtype=torch.uint8))
    return SimpleNamespace(components={"unet": module, "tokenizer": "none"})


def test_least_recently_used_copies_leave():
    host = HostCopies(10)
    first = pipeline(4)
    assert host.get("a", lambda: first) is first
    host.get("b", lambda: pipeline(4))
    assert host.get("a", pytest.fail) is first
    host.get("c", lambda: pipeline(4))
    assert host.get("a", pytest.fail) is first
    assert host.snapshot().used_bytes == 8
    assert host.get("b", lambda: pipeline(4)) is not None
    assert host.snapshot().hits == 2


def test_copy_that_is_larger_than_told_is_given_but_not_kept():
    host = HostCopies(10)
    assert host.fits(10)
    assert host.get("a", lambda: pipeline(11)) is not None
    assert host.snapshot().held == 0


def test_nothing_fits_no_budget():
    assert not HostCopies(0).fits(1)


def test_size_that_is_not_known_does_not_fit():
    assert not HostCopies(10).fits(0)


def test_forgotten_copy_is_read_again():
    host = HostCopies(10)
    host.get("a", lambda: pipeline(4))
    host.forget("a")
    host.forget("never there")
    assert host.get("a", lambda: pipeline(3)) is not None
    assert host.snapshot().used_bytes == 3
