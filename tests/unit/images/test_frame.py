"""What a parent believes of what a worker says."""

import io
import os
import pickle

import pytest
from PIL import Image

from serve_app import errors
from serve_app.images.frame import LENGTH, pack, unpack
from serve_app.types import Picture, PreparedImages


@pytest.mark.parametrize(
    "value",
    [os.getcwd, Image.new("L", (1, 1)), errors.JobNotFound(1), io.BytesIO],
    ids=lambda value: type(value).__name__,
)
def test_parent_believes_only_a_few_classes(value):
    with pytest.raises(pickle.UnpicklingError):
        unpack(pickle.dumps(value))


@pytest.mark.parametrize("data", [b"", b"rubbish", pickle.dumps("init_image")[:-3]], ids=str)
def test_parent_takes_rubbish_for_a_worker_gone_wrong(data):
    with pytest.raises(pickle.UnpicklingError):
        unpack(data)


PICTURE = Picture(b"x", 1, 2)
BELIEVED = [
    "init_image",
    PICTURE,
    PreparedImages(init=PICTURE, mask=PICTURE),
    errors.InvalidImage("f", "m"),
    errors.GenerationFailed("KeyError"),
]


@pytest.mark.parametrize("value", BELIEVED, ids=lambda value: type(value).__name__)
def test_what_is_believed_arrives_whole(value):
    data = pack(value)
    assert LENGTH.unpack(data[: LENGTH.size]) == (len(data) - LENGTH.size,)
    assert repr(unpack(data[LENGTH.size :])) == repr(value)
