"""Every error survives the trip between Ray actors and has its wire facts."""

import inspect
import pickle

import pytest

from serve_app import errors
from serve_app.failure import to_failure

CLASSES = [
    value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, errors.DreamserveError)
]
ARGUMENTS = {
    errors.InvalidRequest: ("prompt", "too long"),
    errors.InvalidImage: ("init_image", "unreadable"),
    errors.AddOnMisfit: ("lora_model", "The LoRA ink does not fit this model"),
    errors.NotAllowed: ("not for you",),
    errors.NotServed: ("not here",),
    errors.TooManyOpen: (3, 20, 4.5),
    errors.WeightsRefused: ("sd15", "no such file"),
}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_error_pickles_with_all_its_facts(cls):
    error = cls(*ARGUMENTS.get(cls, ()))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert copy.args == error.args
    assert (copy.public_message, copy.fields) == (error.public_message, error.fields)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_error_is_public_and_drawn_in_the_tree(cls):
    assert cls.__name__ in errors.__all__
    assert cls.__name__ in errors.__doc__ or cls is errors.DreamserveError


def test_error_has_a_code_of_its_own_unless_it_is_a_case_of_another():
    assert [cls for cls in CLASSES if "code" not in vars(cls)] == [errors.TooManyOpen]


def test_codes_are_unique():
    codes = [cls.code for cls in CLASSES if "code" in vars(cls)]
    assert len(codes) == len(set(codes))


def test_failure_of_an_unknown_error_says_nothing_about_it():
    failure = to_failure(ValueError("/secret/path sk_live_1"))
    assert failure.message == "Failed, Try Again"
    assert "secret" not in failure.model_dump_json()


def test_failure_of_an_image_error_names_the_field():
    failure = to_failure(errors.InvalidImage("mask_image", "no picture"))
    assert failure.fields == {"mask_image": ["no picture"]}


def test_message_repeats_only_the_beginning_of_a_value():
    assert errors.echoed("x" * 500) == "x" * 96
    assert errors.echoed(7) == "7"
