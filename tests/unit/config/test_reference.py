"""The page of settings has every one of them, at any depth."""

import json

import pytest

from serve_app.config import AppConfig, reference
from serve_app.config.fields import paths

ALL = list(paths(AppConfig))
LEAVES = [one for one in ALL if not any(other[: len(one)] == one != other for other in ALL)]
BUCKET = {"storage": {"backend": "s3", "s3": {"bucket": "pictures"}}}
VALUES = {
    **dict.fromkeys(("endpoint_url", "link_endpoint_url", "public_url"), "https://store.example"),
    **dict.fromkeys(("bucket", "prefix", "region", "access_key_id", "secret_access_key"), "other"),
    "path_style": "false",
    "link_ttl_s": "60",
    "timeout_s": "7",
    "max_attempts": "9",
}


def test_every_setting_has_a_row():
    text = reference.markdown()
    names = [f"| `DREAMSERVE_{'__'.join(path).upper()}` |" for path in LEAVES]
    assert {name for name in names if text.count(name) != 1} == set()
    assert len(names) > 150


def test_sections_that_may_be_left_out_are_seen():
    assert {one[2] for one in LEAVES if one[:2] == ("storage", "s3")} == VALUES.keys()


@pytest.mark.parametrize("name", VALUES)
def test_variable_of_the_page_sets_a_field_of_the_bucket(monkeypatch, name):
    if "key" in name:  # they go together
        monkeypatch.setenv("DREAMSERVE_STORAGE__S3__ACCESS_KEY_ID", "other")
        monkeypatch.setenv("DREAMSERVE_STORAGE__S3__SECRET_ACCESS_KEY", "other")
    monkeypatch.setenv(f"DREAMSERVE_STORAGE__S3__{name.upper()}", VALUES[name])
    value = getattr(AppConfig.model_validate(BUCKET).storage.s3, name)
    plain = value.get_secret_value() if "key" in name else value
    assert plain == (VALUES[name] if isinstance(plain, str) else json.loads(VALUES[name]))
