"""`enhance_style`: words by name, from the service's own table or the operator's."""

import pytest

from serve_app.api.requests import style
from serve_app.config import AppConfig, HttpConfig

TEXT2IMG = "/api/v4/dreambooth"


@pytest.mark.parametrize(
    ("name", "words"),
    [("pixel-art", "pixel art"), ("anime", "anime key visual"), ("misc-gothic", "ornate")],
)
async def test_style_appends_its_words_and_is_shown(api, text_body, name, words):
    reply = await api.reply(TEXT2IMG, text_body | {"enhance_style": name})
    assert reply["meta"]["enhance_style"] == name
    assert reply["meta"]["prompt"].startswith(" a cat ")
    assert words in reply["meta"]["prompt"]


async def test_words_of_the_style_come_before_the_models_own(api, text_body):
    body = text_body | {"model_id": "midjourney-v4-painta", "enhance_style": "origami"}
    prompt = (await api.last_request(TEXT2IMG, body)).spec.prompt
    assert prompt.startswith(" a cat origami, folded paper, pleats, paper craft DSLR photography")


async def test_style_without_enhancement_has_nothing_to_act_on(api, text_body):
    body = text_body | {"enhance_prompt": "no", "enhance_style": "anime"}
    meta = (await api.reply(TEXT2IMG, body))["meta"]
    assert (meta["prompt"], meta["enhance_style"]) == ("a cat", None)


@pytest.mark.parametrize(
    ("model", "name", "reason"),
    [
        ("your_model_id", "no-such", "No style has the name no-such."),
        ("your_model_id", "x" * 200, f"No style has the name {'x' * 96}."),
        ("coarse", "anime", "The model coarse does not know styles."),
    ],
    ids=["unknown", "long", "model"],
)
async def test_style_that_cannot_be_had_is_refused_with_the_reason(
    api, text_body, model, name, reason
):
    reply = await api.reply(TEXT2IMG, text_body | {"model_id": model, "enhance_style": name})
    assert reply["message"] == {"enhance_style": [reason]}


async def test_operators_table_replaces_the_services(make_api, text_body, tmp_path):
    (tmp_path / "mine.yaml").write_text("corporate: in our colours\n")
    api = make_api(HttpConfig(styles=tmp_path / "mine.yaml"))
    spec = (await api.last_request(TEXT2IMG, text_body | {"enhance_style": "corporate"})).spec
    assert spec.prompt == " a cat in our colours"
    assert (await api.reply(TEXT2IMG, text_body | {"enhance_style": "anime"}))["status"] == "error"


def test_table_that_is_none_is_refused_at_the_start(make_api, tmp_path):
    (tmp_path / "bad.yaml").write_text("- a\n- b\n")
    with pytest.raises(ValueError, match="valid dictionary"):
        make_api(HttpConfig(styles=tmp_path / "bad.yaml"))


def test_services_table_has_the_documented_names():
    names = set(style.table(None))
    assert len(names) == 185  # 189 on the page, of which one is there twice and three are left out
    assert {"enhance", "cinematic", "ads-luxury", "photo-hdr", "3d-model", "texture"} <= names


def test_relative_table_is_found_from_the_root_folder(tmp_path):
    config = AppConfig(root_dir=tmp_path, http=HttpConfig(styles="styles.yaml"))
    assert config.http.styles == tmp_path / "styles.yaml"
