"""Effects of a request: upscale, panorama, highres_fix and self_attention."""

import pytest

from serve_app.config import HttpConfig
from serve_app.models import Catalogue
from tests.unit.api.conftest import entry

INPAINT = "/api/v4/dreambooth/inpaint"
TEXT2IMG = "/api/v4/dreambooth"
IMG2IMG = "/api/v4/dreambooth/img2img"


async def test_upscale_is_shown_beside_the_painted_size(api, text_body):
    meta = (await api.reply(TEXT2IMG, text_body | {"upscale": "2"}))["meta"]
    assert (meta["upscale"], meta["W"], meta["H"]) == ("2", 512, 512)


@pytest.mark.parametrize(
    ("model_id", "configured", "upscale", "wanted"),
    [
        pytest.param("your_model_id", None, "2", None, id="none"),
        pytest.param("your_model_id", "esrgan", "2", "esrgan", id="configured"),
        pytest.param("your_model_id", "for-sharp", "2", None, id="configured-for-others"),
        pytest.param("sharp", "esrgan", "3", "for-sharp", id="of-the-model"),
        pytest.param("sharp", "esrgan", "no", None, id="not-asked"),
    ],
)
async def test_upscale_uses_what_the_model_or_the_configuration_names(
    make_api, text_body, model_id, configured, upscale, wanted
):
    api = make_api(HttpConfig(upscaler=configured))
    body = text_body | {"model_id": model_id, "upscale": upscale}
    assert (await api.last_request(TEXT2IMG, body)).spec.upscaler == wanted
    meta = (await api.reply(TEXT2IMG, body))["meta"]
    shown = {} if upscale == "no" else {"upscaler": wanted or "lanczos"}
    assert {name: value for name, value in meta.items() if name == "upscaler"} == shown


async def test_upscaler_that_the_catalogue_lacks_is_refused_where_it_is_wanted(make_api, text_body):
    api = make_api(HttpConfig(upscaler="gone"))
    reply = await api.reply(TEXT2IMG, text_body | {"upscale": "2"})
    assert reply["message"] == {"upscale": ["No upscaler of the id gone is in the catalogue."]}
    assert (await api.reply(TEXT2IMG, text_body))["status"] == "success"


async def test_upscale_beyond_the_limit_is_refused(make_api, text_body):
    api = make_api(HttpConfig(max_output_pixels=1024 * 1024))
    assert await api.last_request(TEXT2IMG, text_body | {"upscale": 2})
    reply = await api.reply(TEXT2IMG, text_body | {"upscale": 3})
    text = "The upscale may not give more than 1048576 pixels."
    assert reply["message"] == {"upscale": [text]}


@pytest.mark.parametrize("field", ["panorama", "highres_fix"])
async def test_effect_of_text2img_is_refused_with_a_picture(api, text_body, inpaint_body, field):
    for path in (IMG2IMG, INPAINT):
        reply = await api.reply(path, inpaint_body | {field: "yes"})
        assert reply["message"] == {field: [f"{field} is for text to image only."]}


@pytest.mark.parametrize("field", ["self_attention", "upscale"])
async def test_effect_of_every_kind_reaches_the_job(api, inpaint_body, field):
    for path in (IMG2IMG, INPAINT):
        request = await api.last_request(path, inpaint_body | {field: "yes"})
        assert getattr(request.spec, field)


async def test_panorama_is_four_times_as_wide_as_high_unless_asked(api, text_body):
    body = text_body | {"panorama": "yes"}
    spec = (await api.last_request(TEXT2IMG, body)).spec
    assert (spec.height, spec.width) == (512, 2048)
    spec = (await api.last_request(TEXT2IMG, body | {"width": "1600", "height": 256})).spec
    assert (spec.height, spec.width) == (256, 1600)
    spec = (await api.last_request(TEXT2IMG, body | {"width": 9999})).spec
    assert spec.width == 2048
    reply = await api.reply("/api/v6/images/text2img", body | {"width": 2056})
    assert reply["message"] == "width must be between 256 and 2048"


async def test_effects_that_ran_are_in_the_reply(api, text_body):
    body = text_body | {"panorama": "yes", "self_attention": "yes", "highres_fix": "yes"}
    meta = (await api.reply(TEXT2IMG, body))["meta"]
    assert [meta[name] for name in ("panorama", "self_attention", "highres_fix")] == ["yes"] * 3


@pytest.mark.parametrize("field", ["panorama", "self_attention"])
async def test_effect_of_a_unet_is_refused_by_a_model_without_one(api, text_body, field):
    api.service.catalogue = Catalogue([entry(id="flux", category="flux")])
    reply = await api.reply(TEXT2IMG, text_body | {"model_id": "flux", field: "yes"})
    reason = "The model flux has no UNet, which is needed for it."
    assert reply["message"] == {field: [reason]}
