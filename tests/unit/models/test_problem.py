"""What is wrong with an entry, by the name of the field that its author wrote."""

import pytest
from pydantic import ValidationError

from serve_app.models import AddOn, ModelEntry
from serve_app.models.entry import FIELDS, read_entry
from serve_app.models.problem import problems

MODEL = {"id": "m", "source": "weights", "kinds": ["text2img"]}


def found(**changes):
    values = MODEL | changes
    with pytest.raises(ValidationError) as caught:
        read_entry(values)
    return problems(caught.value, values)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": "a/b"}, "id"),
        ({"kinds": ["text2img", "video"]}, "kinds.1"),
        ({"source": {"hub": "a/b", "files": ["*", 7]}}, "source.files.1"),
        ({"defaults": {"steps": "many"}}, "defaults.steps"),
    ],
)
def test_field_is_named_as_its_author_wrote_it(changes, field):
    told = found(**changes)
    assert next(iter(told)) == field
    assert all(text.startswith(f"{field}: ") for text in told[field])


def test_field_that_is_missing_and_one_too_many_are_named():
    with pytest.raises(ValidationError) as caught:
        read_entry({"id": "m", "kinds": ["text2img"]})
    assert next(iter(problems(caught.value, {"id": "m", "kinds": ["text2img"]}))) == "source"
    (text,) = found(native_size=512)["native_size"]
    assert "native_size_px" in text, "what was meant"


def test_every_field_of_an_entry_may_be_meant():
    names = set()
    for section in (ModelEntry, AddOn):
        schema = section.model_json_schema()
        for part in (schema, *schema["$defs"].values()):
            names |= part.get("properties", {}).keys()
    assert names == FIELDS


def test_as_many_are_told_as_somebody_may_read():
    assert len(found(**{f"unknown_{number}": 1 for number in range(50)})) == 20
