"""What an entry may say: the bounds of its numbers and lists, and the length of its texts."""

import pytest
from pydantic import ValidationError

from serve_app.models.entry import read_entry
from serve_app.types import ControlType, Kind

MODEL = {"id": "m", "source": "weights", "kinds": ["text2img"]}
ADD_ON = {"id": "m", "type": "lora", "source": "weights"}
KINDS = [kind.value for kind in Kind]


def is_taken(base, name, value):
    """Whether a field, which may be one of a section, takes a value."""
    section, _, field = name.rpartition(".")
    try:
        read_entry(base | ({section: {field: value}} if section else {field: value}))
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "least", "most", "step"),
    [
        ("defaults.steps", 1, 50, 1),
        ("defaults.guidance_scale", 1, 20, 0.01),
        ("defaults.strength", 0, 1, 0.01),
        ("guidance_rescale", 0, 1, 0.01),
        ("max_guidance", 0, 20, 0.01),
        ("max_steps", 1, 50, 1),
        ("native_size_px", 64, None, 1),
        ("size_multiple_px", 8, 64, 8),
    ],
)
def test_number_has_its_bounds(name, least, most, step):
    assert is_taken(MODEL, name, least)
    assert not is_taken(MODEL, name, least - step)
    if most is not None:
        assert is_taken(MODEL, name, most)
        assert not is_taken(MODEL, name, most + step)


def test_sides_are_multiples_of_a_multiple_of_eight():
    assert [n for n in range(8, 33) if is_taken(MODEL, "size_multiple_px", n)] == [8, 16, 24, 32]


@pytest.mark.parametrize(
    ("base", "name", "value", "is_good"),
    [
        (MODEL, "kinds", [], False),
        (MODEL, "kinds", KINDS, True),
        (MODEL, "kinds", [*KINDS, KINDS[0]], False),
        (MODEL, "warm_sizes_px", [64] * 32, True),
        (MODEL, "warm_sizes_px", [64] * 33, False),
        (MODEL, "name", "x" * 4096, True),
        (MODEL, "name", "x" * 4097, False),
        (MODEL, "id", "x" * 96, True),
        (MODEL, "id", "x" * 97, False),
        (MODEL, "variant", "x" * 32, True),
        (MODEL, "variant", "x" * 33, False),
        (MODEL, "source", {"hub": "a/b", "files": []}, False),
        (MODEL, "source", {"hub": "a/b", "files": ["*"] * 256}, True),
        (MODEL, "source", {"hub": "a/b", "files": ["*"] * 257}, False),
        (MODEL, "source", {"hub": f"{'a' * 96}/{'b' * 96}"}, True),
        (MODEL, "source", {"hub": f"{'a' * 97}/b"}, False),
        (MODEL, "source", {"hub": "a/b", "revision": "v" * 128}, True),
        (MODEL, "source", {"hub": "a/b", "revision": "v" * 129}, False),
        (MODEL, "sha256", "a" * 64, True),
        (MODEL, "sha256", "a" * 63, False),
        (ADD_ON, "models", ["m"] * 1000, True),
        (ADD_ON, "models", ["m"] * 1001, False),
    ],
    ids=lambda value: str(value)[:20],
)
def test_text_or_list_has_its_length(base, name, value, is_good):
    assert is_taken(base, name, value) is is_good


def test_controlnet_may_be_for_every_type_once():
    types = [one.value for one in ControlType]
    net = ADD_ON | {"type": "controlnet"}
    assert is_taken(net, "control", types)
    assert not is_taken(net, "control", [*types, types[0]])


def test_entry_that_says_nothing_has_the_documented_defaults():
    entry = read_entry(MODEL)
    assert entry.defaults.model_dump() == {
        "steps": 31,
        "guidance_scale": 7.5,
        "strength": 0.7,
        "scheduler": "UniPCMultistepScheduler",
    }
    assert (entry.placement, entry.guidance_rescale, entry.warm_sizes_px) == ("own", 0.0, ())
    assert (entry.serve.max_ongoing_requests, entry.serve.num_cpus) == (256, 0.5)
