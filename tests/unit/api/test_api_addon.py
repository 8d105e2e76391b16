"""LoRAs, VAE and embeddings: from their fields to the job, and the reasons of refusals."""

import pytest

from serve_app.api.requests import addon
from serve_app.api.requests.schemas import GenerationBody
from serve_app.api.requests.syntax import read

TEXT2IMG = "/api/v4/dreambooth"


@pytest.mark.parametrize(
    ("model", "strength", "expected"),
    [
        ("contrast-fix", None, [("contrast-fix", 1.0)]),
        ("contrast-fix", "0.45", [("contrast-fix", 0.45)]),
        ("contrast-fix, yae-miko", "0.45,0.55", [("contrast-fix", 0.45), ("yae-miko", 0.55)]),
        ("yae-miko,contrast-fix", 0.3, [("yae-miko", 0.3), ("contrast-fix", 0.3)]),
        ("yae-miko,,contrast-fix,null", "", [("yae-miko", 1.0), ("contrast-fix", 1.0)]),
        (["yae-miko", "contrast-fix"], ["0.2", 0.4], [("yae-miko", 0.2), ("contrast-fix", 0.4)]),
        (
            "contrast-fix,yae-miko,contrast-fix",
            "0.2,-0.3",
            [("contrast-fix", 1.2), ("yae-miko", -0.3)],
        ),
    ],
    ids=["default", "one", "pairs", "one-for-all", "gaps", "lists", "padded-and-added"],
)
async def test_loras_get_their_strengths_in_order(api, text_body, model, strength, expected):
    body = text_body | {"lora_model": model, "lora_strength": strength}
    spec = (await api.last_request(TEXT2IMG, body)).spec
    assert [(use.id, use.strength) for use in spec.loras] == expected


def test_all_ids_that_a_request_names_are_looked_for():
    """A catalogue that does not know one is looked at anew."""
    body = GenerationBody.model_validate(
        {
            "prompt": "a <lora:tagged> cat",
            "lora_model": "one,two",
            "embeddings_model": "style",
            "vae": "soft",
            "ip_adapter_id": "face",
        }
    )
    assert addon.ids(body, read(body)) == ("one", "two", "tagged", "style", "soft", "face")
    bare = GenerationBody.model_validate({"prompt": "a cat"})
    assert addon.ids(bare, read(bare)) == ()


@pytest.mark.parametrize(
    ("model", "strength", "shown"),
    [
        ("contrast-fix,yae-miko", "0.5", ("contrast-fix,yae-miko", "0.5,0.5")),
        ("contrast-fix,yae-miko", "0.45", ("contrast-fix,yae-miko", "0.45,0.45")),
        ("contrast-fix,yae-miko", None, ("contrast-fix,yae-miko", "1,1")),
        ("contrast-fix,yae-miko", "-0.25,", ("contrast-fix,yae-miko", "-0.25,-0.25")),
        ("yae-miko,contrast-fix,yae-miko", "0.1,2,0.2", ("yae-miko,contrast-fix", "0.3,2")),
        (None, "0.5", (None, 1)),
        (None, None, (None, 1)),
    ],
    ids=["one-for-all", "all-the-same", "none", "gap", "added", "no-lora", "nothing"],
)
async def test_meta_has_a_strength_for_each_lora_that_ran(api, text_body, model, strength, shown):
    body = text_body | {"lora_model": model, "lora_strength": strength}
    meta = (await api.reply(TEXT2IMG, body))["meta"]
    assert (meta["lora"], meta["lora_strength"]) == shown


async def test_vae_and_embeddings_reach_the_job(api, text_body):
    body = text_body | {"vae": "kl-f8", "embeddings_model": "badhands"}
    spec = (await api.last_request(TEXT2IMG, body)).spec
    assert (spec.vae, spec.embeddings) == ("kl-f8", ("badhands",))


async def test_meta_repeats_what_was_added(api, text_body):
    body = text_body | {
        "lora_model": "yae-miko, contrast-fix", "lora_strength": "0.45,0.55",
        "vae": "kl-f8", "embeddings_model": "badhands",
    }  # fmt: skip
    meta = (await api.reply(TEXT2IMG, body))["meta"]
    assert (meta["lora"], meta["lora_strength"]) == ("yae-miko,contrast-fix", "0.45,0.55")
    assert (meta["vae"], meta["embeddings"]) == ("kl-f8", "badhands")


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        ({"lora_model": "nope"}, "lora_model", "No LoRA of the id nope is in the catalogue."),
        ({"lora_model": "contrast-fix,nope"}, "lora_model", "No LoRA of the id nope is"),
        ({"lora_model": "kl-f8"}, "lora_model", "No LoRA of the id kl-f8 is"),
        ({"lora_model": "../../etc/passwd"}, "lora_model", "No LoRA of the id"),
        (
            {"lora_model": "only-inpaint"},
            "lora_model",
            "The LoRA only-inpaint is not for the model your_model_id.",
        ),
        ({"lora_model": ",".join(["yae-miko"] * 17)}, "lora_model", "more than 16 ids"),
        ({"vae": "nope"}, "vae", "No VAE of the id nope is in the catalogue."),
        ({"vae": "contrast-fix"}, "vae", "No VAE of the id contrast-fix is"),
        ({"embeddings_model": "nope"}, "embeddings_model", "No embedding of the id nope is"),
        (
            {"lora_model": "yae-miko", "lora_strength": "0.1,0.2"},
            "lora_strength",
            "has more values than lora_model has ids",
        ),
        ({"ip_adapter_id": "nope"}, "ip_adapter_id", "No IP adapter of the id nope is"),
        ({"ip_adapter_image": "aGk="}, "ip_adapter_id", "ip adapter id field is required"),
        (
            {"ip_adapter_id": "ip-adapter-plus_sd15"},
            "ip_adapter_image",
            "ip adapter image field is required",
        ),
        ({"lora_strength": "0.1,10.5"}, "lora_strength", "must be between -10 and 10"),
    ],
    ids=lambda value: None,
)
async def test_add_on_that_cannot_be_used_is_refused_by_its_field(
    api, text_body, fields, field, text, service
):
    reply = await api.reply(TEXT2IMG, text_body | fields)
    assert reply["status"] == "error"
    assert list(reply["message"]) == [field]
    assert text in reply["message"][field][0]
    assert not service.jobs


async def test_picture_and_scale_reach_the_ip_adapter_and_meta(api, text_body):
    picture = "https://a.example/i.png"
    body = text_body | {"ip_adapter_id": "ip-adapter-plus_sd15", "ip_adapter_image": picture}
    assert (await api.last_request(TEXT2IMG, body)).spec.ip_adapter.scale == 0.6
    meta = (await api.reply(TEXT2IMG, body | {"ip_adapter_scale": "0.25"}))["meta"]
    assert meta["ip_adapter_id"] == "ip-adapter-plus_sd15"
    assert (meta["ip_adapter_scale"], meta["ip_adapter_image"]) == (0.25, picture)


async def test_inline_picture_for_an_ip_adapter_is_kept_and_not_repeated(api, text_body):
    body = text_body | {"ip_adapter_id": "ip-adapter-plus_sd15", "ip_adapter_image": "aGk="}
    request = await api.last_request(TEXT2IMG, body)
    assert request.ip_adapter_image.stored_key
    assert (await api.reply(TEXT2IMG, body))["meta"]["ip_adapter_image"] == ""


async def test_every_unknown_id_is_named(api, text_body):
    body = text_body | {"lora_model": "a,yae-miko,b,a", "vae": "c"}
    message = (await api.reply(TEXT2IMG, body))["message"]
    assert [len(message["lora_model"]), len(message["vae"])] == [2, 1]


async def test_long_unknown_id_is_not_repeated_whole(api, text_body):
    reply = await api.reply(TEXT2IMG, text_body | {"vae": "x" * 500})
    assert "x" * 97 not in reply["message"]["vae"][0]
