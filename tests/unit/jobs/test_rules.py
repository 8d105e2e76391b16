"""Bounds of what a key may be given."""

import math

import pytest
from pydantic import ValidationError

from serve_app.fairness import MAX_PRIORITY
from serve_app.jobs.rules import MOST, KeyRules

BOUNDS = {
    "requests_per_minute": (1, MOST),
    "max_open": (0, MOST),
    "monthly_pictures": (0, MOST),
    "max_priority": (0, MAX_PRIORITY),
}


@pytest.mark.parametrize("rule", BOUNDS)
def test_rule_has_a_least_and_a_most(rule):
    least, most = BOUNDS[rule]
    for value in (least, most, None):
        assert getattr(KeyRules(**{rule: value}), rule) == value
    for value in (least - 1, most + 1):
        with pytest.raises(ValidationError):
            KeyRules(**{rule: value})


@pytest.mark.parametrize("weight", [0, -1, 100.1, math.inf, math.nan])
def test_weight_is_a_number_above_0_and_up_to_100(weight):
    with pytest.raises(ValidationError):
        KeyRules(weight=weight)
    assert KeyRules(weight=100).weight == 100


def test_models_are_named_a_thousand_at_most():
    names = tuple(f"m{number}" for number in range(1001))
    assert len(KeyRules(models=names[:1000]).models) == 1000
    with pytest.raises(ValidationError):
        KeyRules(models=names)
