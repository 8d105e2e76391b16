import pytest

from serve_app.pipelines.addons.triggers import replaced, with_triggers
from tests.unit.pipelines.test_specs import spec


@pytest.mark.parametrize(
    ("prompt", "negative", "expected"),
    [
        ("a cat", "", "a cat sks"),
        ("", "", "sks"),
        ("a SKS cat", "", "a SKS cat"),
        ("a cat", "sks", "a cat"),
        ("tasks", "", "tasks sks"),
        ("a (sks:1.2) cat", "", "a (sks:1.2) cat"),
    ],
)
def test_word_of_an_embedding_is_put_at_the_end_where_no_text_has_it(prompt, negative, expected):
    asked = spec(prompt=prompt, negative_prompt=negative, embeddings=("style",))
    assert with_triggers(asked, {"style": "sks"}).prompt == expected


def test_words_of_several_embeddings_are_put_in_their_order():
    asked = spec(prompt="a cat", embeddings=("b", "a", "b"))
    assert with_triggers(asked, {"a": "one", "b": "<two>"}).prompt == "a cat <two> one"


@pytest.mark.parametrize(
    ("embeddings", "prompt", "expected"),
    [
        pytest.param(("short", "long"), "a bad-hands-5", "a bad-hands-5 bad-hands", id="longer"),
        pytest.param(("short", "long"), "a bad-hands", "a bad-hands Bad-Hands-5", id="shorter"),
        pytest.param(("long", "short"), "", "Bad-Hands-5 bad-hands", id="neither"),
        pytest.param(("short", "same"), "", "bad-hands", id="one-word-of-two"),
    ],
)
def test_word_inside_of_another_is_not_taken_for_it(embeddings, prompt, expected):
    asked = spec(prompt=prompt, embeddings=embeddings)
    words = {"short": "bad-hands", "long": "Bad-Hands-5", "same": "BAD-hands"}
    assert with_triggers(asked, words).prompt == expected


@pytest.mark.parametrize(
    ("triggers", "text", "expected"),
    [
        pytest.param({}, "a cat", "a cat", id="none"),
        pytest.param(
            {"a": "bad", "b": "bad-5"}, "Bad, BAD-5; badly", "<a>, <b>; badly", id="inside"
        ),
        pytest.param({"b": "bad-5", "a": "bad"}, "bad-5 bad-6", "<b> <a>-6", id="other-order"),
        pytest.param({"a": "sun", "b": "Sun"}, "a (sun:1.2)", "a (<a> <b>:1.2)", id="one-word"),
        pytest.param({"x": "a", "a": "x"}, "a x", "<x> <a>", id="token-like-a-word"),
        pytest.param({"a": "(*)"}, "a (*) b", "a <a> b", id="signs"),
        pytest.param({"a": "is"}, "\u0130s", "<a>", id="letter-that-grows"),
    ],
)
def test_words_are_replaced_in_one_pass(triggers, text, expected):
    assert replaced(text, triggers, {name: f"<{name}>" for name in triggers}) == expected
