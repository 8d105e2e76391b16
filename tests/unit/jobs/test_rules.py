"""Bounds of what a key may be given."""

import math

import pytest
from pydantic import ValidationError

from serve_app import errors
from serve_app.fairness import MAX_PRIORITY
from serve_app.jobs.rules import MAX_LIFETIME_S, MOST, Feature, KeyRules, KeyUse, placed
from serve_app.models.revision import canary_id
from serve_app.types import ControlNetUse, IpAdapterUse, LoraUse, OutputPlan
from tests.builders import job_request, spec

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
    for good in (0.01, 100):
        assert KeyRules(weight=good).weight == good


def test_numbers_fit_the_columns_and_a_life_has_a_date():
    assert MOST == 1_000_000_000 < 2**31
    assert MAX_LIFETIME_S / 86_400 == 36_525  # a hundred years


def test_folder_of_results_has_up_to_three_names_and_128_characters():
    for good in ("acme", "customers/acme", "a/b/c", "a" * 60 + "/" + "b" * 60):
        assert KeyRules(storage_prefix=good).storage_prefix == good
    for bad in ("", "/", "a/../b", "a//b", "a/b/c/d", "a b", "/".join(["a" * 43] * 3)):
        with pytest.raises(ValidationError):
            KeyRules(storage_prefix=bad)


def test_ids_of_models_are_text_that_databases_take():
    for bad in ("a\0", "\ud800"):
        with pytest.raises(ValidationError):
            KeyRules(models=(bad,))


def test_rules_are_filled_in_where_they_say_nothing():
    own, defaults = KeyRules(max_open=0, weight=2), KeyRules(max_open=5, max_priority=1)
    assert own.over(defaults) == KeyRules(max_open=0, weight=2, max_priority=1)


def test_key_that_has_asked_for_nothing_may_ask():
    KeyRules(max_open=1, monthly_pictures=1).check_use(KeyUse(), 1)
    assert KeyUse() == KeyUse(num_open=0, pictures=0, age_s=None)
    KeyRules().check_use(KeyUse(num_open=MOST, pictures=MOST), 1)


def test_places_rate_and_pictures_are_used_to_the_last_one():
    rules = KeyRules(max_open=3, monthly_pictures=10)
    rules.check_use(KeyUse(num_open=2, pictures=8, age_s=60.0), samples=2)
    with pytest.raises(errors.TooManyOpen) as open_jobs:
        rules.check_use(KeyUse(num_open=3), samples=1)
    assert (open_jobs.value.limit, open_jobs.value.num_open) == (3, 3)
    with pytest.raises(errors.RateLimited) as rate:
        rules.check_use(KeyUse(age_s=59.5), samples=1)
    assert rate.value.retry_after_s == 0.5
    with pytest.raises(errors.MonthlyLimit):
        rules.check_use(KeyUse(pictures=8), samples=3)


def test_models_are_those_that_clients_ask_for():
    rules = KeyRules(models=("a", "b"))
    for model_id in ("a", "b", canary_id("b")):
        rules.check_request(job_request(spec=spec(model_id=model_id)))
    with pytest.raises(errors.NotAllowed, match="may not use the model c\\."):
        rules.check_request(job_request(spec=spec(model_id=canary_id("c"))))


def test_priority_above_the_highest_is_refused():
    KeyRules(max_priority=2).check_request(job_request(priority=2))
    KeyRules().check_request(job_request(priority=-4))
    for rules, highest in ((KeyRules(), 0), (KeyRules(max_priority=2), 2)):
        with pytest.raises(errors.NotAllowed, match=f"above {highest}\\."):
            rules.check_request(job_request(priority=highest + 1))


USES = {
    Feature.CONTROLNET: {"controlnets": (ControlNetUse(id="edges", scale=1.0),)},
    Feature.LORA: {"loras": (LoraUse(id="fur", strength=0.5),)},
    Feature.EMBEDDING: {"embeddings": ("easy",)},
    Feature.IP_ADAPTER: {"ip_adapter": IpAdapterUse(id="face", scale=1.0)},
    Feature.UPSCALE: {"upscale": 2},
    Feature.HIGHRES_FIX: {"highres_fix": True},
    Feature.PANORAMA: {"panorama": True},
    Feature.VAE: {"vae": "soft"},
}


@pytest.mark.parametrize("feature", USES)
def test_feature_is_allowed_where_it_is_named(feature):
    request = job_request(spec=spec(**USES[feature]))
    KeyRules().check_request(request)
    KeyRules(features=(Feature.TEXT2IMG, feature)).check_request(request)
    with pytest.raises(errors.NotAllowed, match=f"may not use {feature.value}\\."):
        KeyRules(features=(Feature.TEXT2IMG,)).check_request(request)


def test_all_that_is_forbidden_is_named_webhooks_too():
    rules = KeyRules(features=(Feature.UPSCALE,))
    asked = job_request(spec=spec(upscale=2), webhook="https://a.example/")
    with pytest.raises(errors.NotAllowed, match="may not use text2img, webhook\\."):
        rules.check_request(asked)
    plain = KeyRules(features=(Feature.TEXT2IMG,))
    plain.check_request(job_request(spec=spec(upscale=1)))


def test_results_are_kept_in_the_folder_of_the_key():
    plan = OutputPlan(keys=("temp/a.png", "temp/b.png"), hint_keys=("temp/h.png",), temp=True)
    request = job_request(output=plan)
    moved = placed(request, KeyRules(storage_prefix="customers/acme")).output
    assert moved.keys == ("temp/customers/acme/a.png", "temp/customers/acme/b.png")
    assert moved.hint_keys == ("temp/customers/acme/h.png",)
    assert moved.temp
    assert placed(request, KeyRules()) == request


def test_models_are_named_a_thousand_at_most():
    names = tuple(f"m{number}" for number in range(1001))
    assert len(KeyRules(models=names[:1000]).models) == 1000
    with pytest.raises(ValidationError):
        KeyRules(models=names)
