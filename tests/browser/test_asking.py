"""Pictures and fields of the playground, and the requests that they become."""

import io
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from tests.browser.conftest import drag, open_playground, paint, pixels, take_example
from tests.browser.fake_server import png
from tests.browser.playing import INPAINT, choose, notices, sent

pytestmark = pytest.mark.browser
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400)


def test_photo_of_forty_megapixels_is_made_smaller_and_that_is_said(page, server):
    open_playground(page, server.url)
    file = io.BytesIO()
    Image.new("RGB", (7300, 5480), "#888").save(file, "JPEG", quality=30)
    choose(page, "IMG_1.jpg", file.getvalue())
    page.get_by_text("It was made smaller here in the browser: 2048 \u00d7 1537.").wait_for()
    assert "40 megapixels (7300 \u00d7 5480)" in notices(page)
    page.locator("#prompt").fill("a star")
    drag(page, (0.4, 0.5), (0.6, 0.5))
    paint(page)
    assert pixels(sent(server)["init_image"]).shape == (1537, 2048, 3)
    assert pixels(sent(server)["mask_image"]).shape == (1537, 2048, 3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (HEIC, "a.bin is a HEIC photo, which this browser cannot read. Export it as JPEG"),
        (b"no picture at all", "a.bin cannot be read as a picture. PNG, JPEG and WebP work."),
        (b"", "a.bin is empty."),
    ],
    ids=["heic", "text", "empty"],
)
def test_what_cannot_be_read_is_named(ready, data, words):
    choose(ready, "a.bin", data)
    ready.locator(".notice.error").wait_for()
    assert words in notices(ready)
    assert ready.locator("#canvas").is_visible()  # the picture before is still there


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_picture_is_dropped_or_pasted(page, server, way):
    open_playground(page, server.url)
    page.evaluate(
        """([way, bytes]) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "a.png", {type: "image/png"}));
          const event = way === "drop"
            ? new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})
            : new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true});
          document.body.dispatchEvent(event);
        }""",
        [way, list(png(size=(96, 64)))],
    )
    page.locator("#canvas").wait_for()
    assert page.locator("#status").inner_text() == "a.png: 96 by 64 pixels."


def test_panel_says_what_is_sent(ready, server):
    ready.locator("#prompt").fill("a red star")
    for summary in ("Negative prompt", "LoRAs, VAE, embeddings", "Sampling", "More"):
        ready.locator("summary", has_text=summary).click()
    ready.locator("#negative").fill("a circle")
    ready.locator("#use-lora-ink").check()
    ready.locator("#lora-ink").fill("0.6")
    ready.locator("#vae").select_option("warm")
    ready.locator("#use-embedding-sun").check()
    ready.locator("#steps").fill("12")
    ready.locator("#guidance").fill("4.5")
    ready.locator("#strength").fill("0.9")
    ready.locator("#scheduler").select_option("DDIMScheduler")
    ready.locator("#shape").select_option("768x512")
    ready.locator("#count").select_option("2")
    ready.locator("#seed").fill("77")
    ready.locator("#lock").click()
    ready.locator("#safety").uncheck()
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    paint(ready)
    body = sent(server)
    pictures = ("init_image", "mask_image")
    assert {name: value for name, value in body.items() if name not in pictures} == {
        "model_id": "all",
        "prompt": "a red star",
        "negative_prompt": "a circle",
        "width": 768,
        "height": 512,
        "samples": 2,
        "steps": 12,
        "guidance_scale": 4.5,
        "strength": 0.9,
        "seed": 77,
        "scheduler": "DDIMScheduler",
        "vae": "warm",
        "lora_model": "ink",
        "lora_strength": "0.6",
        "embeddings_model": "sun",
        "enhance_prompt": "yes",
        "safety_checker": "no",
        "use_karras_sigmas": "yes",
        "instant_response": "yes",
    }
    assert ready.locator("#samples button").count() == 2


def test_sizes_follow_the_picture_as_the_mode_asks(page, server):
    open_playground(page, server.url)
    choose(page, "a.png", png(size=(1501, 600)))
    page.locator("#canvas").wait_for()
    page.locator("#prompt").fill("a star")
    drag(page, (0.5, 0.5), (0.52, 0.5))
    paint(page)
    assert (sent(server)["width"], sent(server)["height"]) == (1024, 408)
    page.locator("#modes input[value=img2img]").check(force=True)
    paint(page)
    body = sent(server, "/api/v4/dreambooth/img2img")
    assert not {"width", "height"} & body.keys()  # the server keeps the shape


def test_modes_are_those_of_the_model(page, server):
    open_playground(page, server.url)
    assert page.locator("#modes").inner_text().split() == ["Text", "Image", "Inpaint", "Control"]
    page.locator("#model").select_option("text")
    assert page.locator("#modes").inner_text().split() == ["Text"]
    assert page.locator("#loras").inner_text() == ""  # the LoRA is for the other model
    page.locator("#prompt").fill("a star")
    paint(page)
    body = sent(server, "/api/v4/dreambooth")
    assert "init_image" not in body
    assert "strength" not in body
    assert page.locator("#compare").is_hidden()  # there is nothing to compare with


@pytest.mark.parametrize(
    ("mode", "path", "field"),
    [
        ("img2img", "/api/v4/dreambooth/img2img", "init_image"),
        ("controlnet", "/api/v5/controlnet", "control_image"),
    ],
    ids=["img2img", "controlnet"],
)
def test_other_modes_send_the_picture(ready, server, mode, path, field):
    ready.locator(f"#modes input[value={mode}]").check(force=True)
    assert ready.locator("#tools").is_hidden()
    paint(ready)
    body = sent(server, path)
    assert pixels(body[field]).shape == (512, 512, 3)
    assert "mask_image" not in body
    if mode == "controlnet":
        assert (body["controlnet_model"], body["controlnet_type"]) == ("edges", "canny")
        assert (body["auto_hint"], body["controlnet_conditioning_scale"]) == ("yes", 0.7)


SOFT = {"mask_mode": {"enum": ["hard", "soft", "auto", None]}, "mask_expand": {}, "mask_blur": {}}


def test_fields_that_the_server_has_are_offered(page, server):
    server.offers = {**SOFT, "outpaint": {}}
    open_playground(page, server.url)
    take_example(page)
    page.locator("summary", has_text="More").click()
    page.locator("#mask-mode").select_option("soft")
    page.locator("#mask-blur").fill("12")
    page.locator("summary", has_text="Extend the picture").click()
    page.locator("[data-side=right]").fill("64")
    with page.expect_request(f"**{INPAINT}") as asking:
        page.locator("#paint").click()  # without a mask: only what is new is painted
    page.locator("#result-tools").wait_for()  # else the next test may be asked for this one's
    body = asking.value.post_data_json
    assert body["outpaint"] == {"right": 64}
    assert (body["mask_mode"], body["mask_blur"]) == ("soft", 12)
    assert not {"mask_image", "mask_expand", "width", "height"} & body.keys()


def test_fields_that_the_server_lacks_are_not_shown(ready, server):
    ready.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    has = ready.request.get(f"{server.url}openapi.json").text()
    for field, shown in (("mask_mode", "#mask-mode"), ("outpaint", "#outpaint")):
        assert ready.locator(shown).is_visible() == (f'"{field}"' in has)


def test_seed_is_drawn_anew_unless_it_is_kept(ready, server):
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    seeds = []
    for _ in range(2):
        paint(ready)
        seeds.append(sent(server)["seed"])
    ready.locator("#lock").click()
    paint(ready)
    seeds.append(sent(server)["seed"])
    with ready.expect_request(f"**{INPAINT}"):
        ready.locator("#vary").click()
    ready.locator("#result-tools").wait_for()
    seeds.append(sent(server)["seed"])
    assert seeds[0] != seeds[1]
    assert seeds[1] == seeds[2]
    assert seeds[2] != seeds[3]


def test_bad_field_is_told_beside_it(ready, server):
    ready.locator("summary", has_text="Sampling").click()
    ready.locator("#guidance").fill("99")
    ready.locator("summary", has_text="Sampling").click()
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    ready.locator("#paint").click()
    problem = ready.locator("#problem-guidance_scale")
    problem.wait_for()
    assert problem.inner_text() == "The guidance scale must be between 1 and 20."
    assert problem.is_visible()  # its section was opened
    assert ready.locator("#guidance").get_attribute("aria-invalid") == "true"
    ready.locator("#guidance").fill("3")
    paint(ready)
    assert problem.count() == 0


@pytest.mark.parametrize("language", ["curl", "python", "javascript"])
def test_code_to_copy_sends_the_same_request(page, server, tmp_path, language):
    server.service.keys = {"good": "open"}
    page.goto(server.url)
    page.locator("#key").fill("good")
    page.get_by_role("button", name="Use this key").click()
    page.locator("#modes input").first.wait_for(state="attached")
    take_example(page)
    drag(page, (0.4, 0.3), (0.6, 0.3))
    page.locator("#prompt").fill("a star, 'quoted' and \"so\", $HOME \\ \u2606")
    page.locator("#code").click()
    page.locator(f"#languages input[value={language}]").check(force=True)
    page.locator("#code-text:not(:empty)").wait_for()
    text = page.locator("#code-text").inner_text()
    assert "good" not in text
    for name in ("picture.png", "mask.png"):
        with page.expect_download() as saving:
            page.locator("#code-links button", has_text=name).click()
        saving.value.save_as(tmp_path / name)
    page.locator("#code-close").click()
    (tmp_path / "call.mjs").write_text(text, encoding="utf-8")
    command = {
        "curl": ["bash", "call.mjs"],
        "python": [sys.executable, "call.mjs"],
        "javascript": ["node", "call.mjs"],
    }[language]
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}")
    environment = {**os.environ, "DREAMSERVE_KEY": "good", "no_proxy": "*"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert f"{server.url}files/" in done.stdout, (done.stdout, done.stderr)
    copied = sent(server)
    paint(page)
    painted = sent(server)
    pictures = ("init_image", "mask_image")
    for body in (copied, painted):
        for name in pictures:
            body[name] = pixels(body[name]).tolist()
    assert painted.pop("instant_response") == "yes"
    assert painted.pop("seed") is not None  # drawn when it is painted
    assert copied == painted
