"""A1111's prompt syntax on the wire: LoRAs in the prompt, and what had no effect."""

import time

import pytest

from serve_app.api.requests.schemas import GenerationBody
from serve_app.api.requests.syntax import read
from serve_app.models import ModelEntry
from serve_app.types import Kind

TEXT2IMG = "/api/v4/dreambooth"
PROCESSING = "Fetch the result with a POST to fetch_result after eta seconds."


@pytest.mark.parametrize(
    ("prompt", "text", "loras"),
    [
        ("a cat <lora:yae-miko:0.8>", "a cat", [("yae-miko", 0.8)]),
        ("<lora:yae-miko> a cat", "a cat", [("yae-miko", 1.0)]),
        ("a <LORA: yae-miko : -0.5 > cat", "a cat", [("yae-miko", -0.5)]),
        ("cat<lora:yae-miko:1>, dog", "cat, dog", [("yae-miko", 1.0)]),
        ("cat<lora:yae-miko:1> dog", "cat dog", [("yae-miko", 1.0)]),
        ("cat <lora:yae-miko:1>dog", "cat dog", [("yae-miko", 1.0)]),
        ("cat<lora:yae-miko:1>dog", "catdog", [("yae-miko", 1.0)]),
        ("cat, <lora:yae-miko:1>, dog", "cat, , dog", [("yae-miko", 1.0)]),
        (
            "<lora:yae-miko:0.5><lora:contrast-fix:2>",
            "",
            [("yae-miko", 0.5), ("contrast-fix", 2.0)],
        ),
        ("<lora:yae-miko:0.5> a <lora:yae-miko:0.25>", "a", [("yae-miko", 0.75)]),
        ("(a <lora:yae-miko:1>:1.2) cat", "(a :1.2) cat", [("yae-miko", 1.0)]),
        ("a <b> <3 <c:d>  e", "a <b> <3 <c:d>  e", []),
        ("a <lora:yae-miko cat", "a <lora:yae-miko cat", []),
    ],
)
async def test_lora_of_the_prompt_leaves_it_and_is_used(api, text_body, prompt, text, loras):
    spec = (await api.last_request(TEXT2IMG, text_body | {"prompt": prompt})).spec
    assert spec.prompt == text
    assert [(use.id, use.strength) for use in spec.loras] == loras


async def test_lora_of_the_prompt_comes_on_top_of_lora_model(api, text_body):
    body = text_body | {
        "prompt": "a cat <lora:yae-miko:0.3> <lora:contrast-fix:0.1>",
        "lora_model": "contrast-fix",
        "lora_strength": "0.6",
    }
    meta = (await api.reply(TEXT2IMG, body))["meta"]
    assert (meta["lora"], meta["lora_strength"]) == ("contrast-fix,yae-miko", "0.7,0.3")
    assert meta["prompt"] == "a cat"


async def test_lora_of_the_prompt_is_no_part_of_what_is_enhanced_or_translated(api, text_body):
    api.service.can_translate = True
    body = text_body | {
        "prompt": "<lora:yae-miko> eine katze", "model_id": "midjourney-v4-painta",
        "multi_lingual": "yes",
    }  # fmt: skip
    spec = (await api.last_request(TEXT2IMG, body)).spec
    assert spec.foreign == "eine katze"
    assert spec.prompt.startswith(" eine katze DSLR photography")


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ("<lora:nope:1>", "No LoRA of the id nope is in the catalogue."),
        ("<lora:kl-f8>", "No LoRA of the id kl-f8 is"),
        ("<lora:../../etc/passwd:1>", "No LoRA of the id ../../etc/passwd is"),
        ("<lora:only-inpaint>", "The LoRA only-inpaint is not for the model your_model_id."),
        ("<lora:yae-miko:strong>", "<lora:yae-miko:strong> must be a number."),
        ("<lora:yae-miko:nan>", "<lora:yae-miko:nan> must be a finite number."),
        ("<lora:yae-miko:11>", "<lora:yae-miko:11> must have a strength between -10 and 10."),
        ("<lora:yae-miko:1:0.5>", "must be <lora:id> or <lora:id:strength>."),
        ("<lora::1>", "must be <lora:id> or <lora:id:strength>."),
        ("<lyco:yae-miko:1>", "<lyco:yae-miko:1> is not served, only <lora:id:strength> is."),
        ("<hypernet:x:1>", "<hypernet:x:1> is not served, only <lora:id:strength> is."),
        ("<lora:yae-miko>" * 17, "more than 16"),
        ("<lora:" + "x" * 500 + ">", "No LoRA of the id " + "x" * 96 + " is in"),
    ],
)
async def test_tag_that_cannot_be_used_is_refused_by_the_prompt(api, text_body, tag, text, service):
    reply = await api.reply(TEXT2IMG, text_body | {"prompt": f"a cat {tag}"})
    assert list(reply["message"]) == ["prompt"]
    assert text in reply["message"]["prompt"][0]
    assert "x" * 97 not in reply["message"]["prompt"][0]
    assert not service.jobs


async def test_every_bad_tag_is_named_beside_a_bad_field(api, text_body):
    body = text_body | {"prompt": "<lora:a> <lora:b> <lyco:c>", "lora_model": "d"}
    message = (await api.reply(TEXT2IMG, body))["message"]
    assert [len(message["prompt"]), len(message["lora_model"])] == [3, 1]


async def test_loras_of_both_places_count_together(api, text_body):
    body = text_body | {
        "prompt": "<lora:yae-miko>" * 9, "lora_model": ",".join(["contrast-fix"] * 8),
    }  # fmt: skip
    reply = await api.reply(TEXT2IMG, body)
    text = "The prompt may not name more than 16 LoRAs, those of lora_model among them."
    assert reply["message"] == {"prompt": [text]}


@pytest.mark.parametrize("tag", ["<lora:yae-miko:1>", "<lora:nope>", "<lyco:x:1>"])
async def test_lora_of_the_negative_prompt_is_left_out_and_said_so(api, text_body, tag):
    reply = await api.reply(TEXT2IMG, text_body | {"negative_prompt": f"blurry, {tag}"})
    assert (reply["meta"]["negative_prompt"], reply["meta"]["lora"]) == ("blurry,", None)
    assert "negative_prompt" in reply["tip"]


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a cat AND a dog", "AND"),
        ("a [cat:dog:0.5]", "[a:b:0.5]"),
        ("a [cat:10]", "[a:b:0.5]"),
        ("a [cat::.5]", "[a:b:0.5]"),
        ("a [cat|dog]", "[a|b]"),
    ],
)
async def test_syntax_that_is_not_understood_is_said_in_tip(api, text_body, field, text, named):
    reply = await api.reply(TEXT2IMG, text_body | {field: text})
    assert named in reply["tip"]
    assert reply["meta"][field].strip() == text  # what it is painted from


@pytest.mark.parametrize(
    "text",
    [
        "a cat and a dog", "SAND", "a (large) cat", "a [large] cat", "a (cat:1.2)",
        r"a \[cat|dog\]", "a cat BREAK a dog", "ratio 3:4, [close up: face]", "a | b",
        "<lora:yae-miko:0.5> a",
    ],
)  # fmt: skip
async def test_syntax_that_is_understood_gives_no_tip(api, text_body, text):
    assert (await api.reply(TEXT2IMG, text_body | {"prompt": text}))["tip"] == ""


async def test_tip_comes_with_processing_too(api, text_body):
    api.service.outcome = None
    reply = await api.reply(TEXT2IMG, text_body | {"prompt": "a AND b"})
    assert reply["tip"] == f"{PROCESSING} AND joins no prompts here, it was read as a word."
    assert (await api.reply(TEXT2IMG, text_body))["tip"] == PROCESSING


@pytest.mark.parametrize(
    ("category", "text", "is_said"),
    [
        ("flux", "a (large:1.2) cat", True),
        ("stable_diffusion_3", "a cat BREAK a dog", True),
        ("flux", "a (large) cat", False),
        ("stable_diffusion_xl", "a (large:1.2) cat BREAK", False),
    ],
)
async def test_weights_for_a_model_without_them_are_said_in_tip(
    make_api, service, text_body, category, text, is_said
):
    entry = ModelEntry(id="your_model_id", source="x", kinds=tuple(Kind), category=category)
    service.__init__([entry])
    reply = await make_api().reply(TEXT2IMG, text_body | {"prompt": text})
    assert ("no weights" in reply["tip"]) is is_said


@pytest.mark.parametrize(
    "text", [" " * 9999 + "<", "[:" + "1" * 9998, "(" + ":1" * 4999, "<lora:" * 1666, "[" * 10000]
)
def test_hostile_prompt_is_read_in_linear_time(text):
    entry = ModelEntry(id="m", source="x", kinds=(Kind.TEXT2IMG,), category="flux")
    body = GenerationBody(prompt=text)
    began = time.process_time()
    for _ in range(20):
        read(body).tip(entry)
    assert time.process_time() - began < 2  # seconds; ten or more if it were quadratic
