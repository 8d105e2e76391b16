"""The playground in a real browser, over a server without models."""

import io
import json
import os
import shutil
import subprocess
import sys

import httpx2
import numpy as np
import pytest
from PIL import Image

from serve_app import errors
from serve_app.types import JobFailure
from tests.browser.conftest import drag, open_playground, paint, pixels, take_example, watch
from tests.browser.fake_server import png

pytestmark = pytest.mark.browser
INPAINT = "/api/v4/dreambooth/inpaint"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400)


@pytest.fixture
def ready(page, server):
    """The playground with an example picture."""
    open_playground(page, server.url)
    take_example(page)
    return page


def sent(server, path: str = INPAINT) -> dict:
    """The body of the last call of a path."""
    return [body for called, body in server.calls if called == path][-1]


def choose(page, name: str, data: bytes, field: str = "#file") -> None:
    page.set_input_files(field, {"name": name, "mimeType": "image/png", "buffer": data})


def notices(page) -> str:
    return page.locator("#notices").inner_text()


def mask_of(page, server) -> np.ndarray:
    """The mask as it is sent."""
    paint(page)
    return pixels(sent(server)["mask_image"])[:, :, 0]


# --- the mask --------------------------------------------------------------------------------


def test_stroke_is_white_where_it_went_and_black_elsewhere(ready, server):
    drag(ready, (0.3, 0.5), (0.7, 0.5))
    mask = mask_of(ready, server)
    assert mask.shape == (512, 512)
    rows, columns = np.nonzero(mask > 127)
    middle, half = 256, 32  # the brush is 64 wide
    assert abs(columns.min() - (0.3 * 512 - half)) < 6
    assert abs(columns.max() - (0.7 * 512 + half)) < 6
    assert abs(rows.min() - (middle - half)) < 6
    assert abs(rows.max() - (middle + half)) < 6


def test_brush_is_as_wide_as_it_is_set(ready, server):
    ready.locator("#size").fill("120")
    drag(ready, (0.5, 0.5), (0.5, 0.5))
    rows, columns = np.nonzero(mask_of(ready, server) > 127)
    assert (np.ptp(rows), np.ptp(columns)) == (pytest.approx(120, abs=3), pytest.approx(120, abs=3))


def test_eraser_undo_redo_invert_and_clear(ready, server):
    counts = []

    def count():
        counts.append(int((mask_of(ready, server) > 127).sum()))
        ready.locator("#back").click()

    drag(ready, (0.2, 0.5), (0.8, 0.5))
    count()
    ready.keyboard.press("e")
    drag(ready, (0.5, 0.3), (0.5, 0.7))
    count()
    ready.locator("#undo").click()
    count()
    ready.locator("#redo").click()
    count()
    ready.locator("#invert").click()
    count()
    whole, cut, undone, redone, inverted = counts
    assert cut < whole
    assert (undone, redone) == (whole, cut)
    assert abs(inverted - (512 * 512 - cut)) < 0.02 * cut  # but for grey edges
    ready.locator("#clear").click()
    ready.locator("#paint").click()
    assert "Nothing is masked yet" in notices(ready)


@pytest.mark.parametrize(
    ("tool", "share"), [("r", 0.4 * 0.3), ("l", 0.4 * 0.3 / 2)], ids=["rectangle", "lasso"]
)
def test_areas_are_filled(ready, server, tool, share):
    ready.keyboard.press(tool)
    if tool == "r":
        drag(ready, (0.7, 0.6), (0.3, 0.3))
    else:
        drag(ready, (0.3, 0.3), (0.7, 0.3), (0.3, 0.6))
    mask = mask_of(ready, server)
    assert abs((mask > 127).mean() - share) < 0.01


def test_soft_brush_fades(ready, server):
    ready.locator("#hardness").fill("0")
    drag(ready, (0.5, 0.5), (0.5, 0.52))
    mask = mask_of(ready, server)
    row = mask[260, 256:292]
    assert row[0] > 230
    assert row[-1] == 0
    assert (np.diff(row) <= 2).all()


def test_keyboard_alone_draws_a_mask(ready, server):
    ready.locator("#canvas").focus()
    ready.keyboard.press("Space")
    for _ in range(2):
        ready.keyboard.press("Shift+ArrowRight")
    ready.keyboard.press("Space")
    assert ready.locator("#status").inner_text() == "Pen up."
    mask = mask_of(ready, server)
    columns = np.nonzero(mask[256] > 127)[0]
    assert (columns.min(), columns.max()) == (pytest.approx(224, abs=2), pytest.approx(416, abs=2))


def test_zoom_and_pan_move_the_view_and_not_the_mask(ready, server):
    ready.locator("#zoom-in").click()
    ready.keyboard.press("h")
    drag(ready, (0.5, 0.5), (0.6, 0.55))
    ready.keyboard.press("b")
    assert ready.locator("#undo").is_disabled()
    ready.locator("#zoom-fit").click()
    drag(ready, (0.5, 0.5), (0.5, 0.5))
    rows, columns = np.nonzero(mask_of(ready, server) > 127)
    assert (rows.mean(), columns.mean()) == (pytest.approx(256, abs=4), pytest.approx(256, abs=4))


def test_mask_is_saved_and_loaded_again(ready, server, tmp_path):
    drag(ready, (0.3, 0.5), (0.7, 0.5))
    with ready.expect_download() as saving:
        ready.locator("#save-mask").click()
    saving.value.save_as(tmp_path / "mask.png")
    ready.locator("#clear").click()
    ready.set_input_files("#mask-file", tmp_path / "mask.png")
    ready.locator("#redo[disabled]").wait_for()
    ready.wait_for_timeout(300)
    loaded = mask_of(ready, server)
    assert np.array_equal(loaded, pixels((tmp_path / "mask.png").read_bytes())[:, :, 0])


def test_mask_of_another_size_is_stretched_and_that_is_said(ready):
    choose(ready, "m.png", png("#fff", (100, 50)), "#mask-file")
    ready.get_by_text("The mask is 100 \u00d7 50; it was stretched to 512 \u00d7 512.").wait_for()


def test_mask_drawn_on_nothing_is_told(page, server):
    open_playground(page, server.url)
    choose(page, "m.png", png(), "#mask-file")
    page.get_by_text("There is no picture yet that this could be the mask of.").wait_for()
    page.locator("#prompt").fill("a star")
    page.locator("#paint").click()
    page.get_by_text("There is no picture yet. Drop one, or take an example.").wait_for()
    assert not [path for path, _ in server.calls if path == INPAINT]


# --- pictures --------------------------------------------------------------------------------


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


# --- requests --------------------------------------------------------------------------------


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
    ready.locator("#vary").click()
    ready.locator("#progress").wait_for()
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


# --- progress --------------------------------------------------------------------------------


def test_progress_is_polled_where_there_are_no_events(ready, server):
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    ready.locator("#paint").click()
    ready.get_by_text("Painting…").wait_for()
    assert ready.locator("#progress-bar").evaluate("bar => bar.value") > 0
    assert ready.locator("#paint").is_disabled()
    ready.locator("#result").wait_for()


def test_events_tell_place_steps_and_previews(ready, server):
    preview = {"image": "data:image/jpeg;base64," + jpeg()}
    server.events = [
        [
            ("queued", {"place": 3, "eta": 2}),
            ("started", {}),
            ("progress", {"step": 5, "steps": 20}),
            ("preview", preview),
            ("progress", {"step": 6, "steps": 20}),
            ("progress", {"step": 7, "steps": 20}),
            ("done", None),
        ]
    ]
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    ready.locator("#paint").click()
    ready.get_by_text("Waiting, place 3 in the queue, about 2 s…").wait_for()
    ready.get_by_text("Painting, step 5 of 20…").wait_for()
    ready.get_by_text("Painting, step 6 of 20…").wait_for()
    red = ready.evaluate(
        """async () => {
          await new Promise((wake) => setTimeout(wake, 100));
          const canvas = document.getElementById("canvas");
          const middle = [canvas.width / 2, canvas.height / 2];
          return [...canvas.getContext("2d").getImageData(...middle, 1, 1).data].slice(0, 3);
        }"""
    )
    assert red[0] > 200
    assert red[1] < 60
    ready.locator("#result").wait_for()
    assert not [path for path, _ in server.calls if "/fetch" in path]


def test_events_go_on_where_they_broke_off(ready, server):
    server.events = [[("queued", {"place": 2, "eta": 1}), ("started", {})], [("done", None)]]
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    paint(ready)
    assert [body["last"] for path, body in server.calls if path == "events"] == [None, "1"]


def test_event_of_failure_is_told(ready, server):
    failed = {"status": "failed", "message": "The generation failed.", "reason": "internal"}
    server.events = [[("failed", failed)]]
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    ready.locator("#paint").click()
    ready.locator(".notice.error", has_text="The generation failed.").wait_for()
    assert ready.locator("#canvas").is_visible()


def jpeg() -> str:
    import base64

    file = io.BytesIO()
    Image.new("RGB", (32, 32), "#f00").save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


def test_cancel_ends_the_job_and_nothing_is_lost(ready, server):
    server.service.is_stuck = True
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    ready.locator("#paint").click()
    ready.locator("#cancel").click()
    ready.locator("#progress").wait_for(state="hidden")
    (job,) = server.service.jobs.values()
    assert job.state == "cancelled"
    assert ready.locator("#canvas").is_visible()
    assert not ready.locator("#undo").is_disabled()
    assert notices(ready) == ""
    assert ready.locator("#history li").count() == 0


# --- keys and errors -------------------------------------------------------------------------


def test_key_is_asked_for_and_kept_in_the_session_only(page, server, context):
    server.service.keys = {"good": "open"}
    page.goto(server.url)
    page.locator("#key-dialog").wait_for()
    page.locator("#key").fill("wrong")
    page.get_by_role("button", name="Use this key").click()
    page.get_by_text("The server does not know this key.").wait_for()
    page.locator("#key").fill("good")
    page.get_by_role("button", name="Use this key").click()
    page.locator("#modes input").first.wait_for(state="attached")
    assert page.evaluate("Object.values(sessionStorage)").count("good") == 1
    assert "good" not in str(page.evaluate("Object.values(localStorage)"))
    take_example(page)
    drag(page, (0.4, 0.5), (0.6, 0.5))
    paint(page)
    assert "key" not in sent(server)  # it is a header, in no body, in no address
    page.reload()  # the same session
    page.locator("#modes input").first.wait_for(state="attached")
    assert not page.locator("#key-dialog").is_visible()
    other = context.new_page()  # another one
    other.goto(server.url)
    other.locator("#key-dialog").wait_for()


def test_key_that_is_revoked_meanwhile_loses_nothing(page, server):
    server.service.keys = {"good": "open"}
    page.goto(server.url)
    page.locator("#key").fill("good")
    page.get_by_role("button", name="Use this key").click()
    page.locator("#modes input").first.wait_for(state="attached")
    take_example(page)
    drag(page, (0.4, 0.5), (0.6, 0.5))
    server.service.is_stuck = True
    page.locator("#paint").click()
    page.locator("#progress").wait_for()
    server.service.keys = {"other": "open"}
    page.get_by_text("The server does not know this key.").wait_for()
    server.service.is_stuck = False
    page.locator("#key").fill("other")
    page.get_by_role("button", name="Use this key").click()
    page.locator("#result").wait_for()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.Overloaded(7), "Try again in 7 s."),
        (errors.DreamserveError(), errors.DreamserveError().message),
    ],
    ids=["overloaded", "internal"],
)
def test_refusal_is_told_in_the_words_of_the_server(ready, server, error, words):
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    server.refuse(error)
    ready.locator("#paint").click()
    ready.locator(".notice.error", has_text=words).wait_for()
    server.refuse(None)
    paint(ready)  # what was drawn is still there
    assert ready.locator(".notice").count() == 0


def test_job_that_fails_is_told(ready, server):
    server.service.outcome = JobFailure(code="out_of_memory", message="Too large for the device.")
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    ready.locator("#paint").click()
    ready.locator(".notice.error", has_text="Too large for the device.").wait_for()
    assert ready.locator("#history li").count() == 0


def test_server_that_is_down_for_a_while_loses_nothing(ready, server):
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    server.service.is_stuck = True
    ready.locator("#paint").click()
    ready.get_by_text("Waiting").first.wait_for()
    server.is_down = True
    ready.get_by_text("The server does not answer. Trying again…").wait_for()
    server.is_down = server.service.is_stuck = False
    ready.locator("#result").wait_for()


def test_page_that_is_opened_too_early_goes_on_by_itself(page, server):
    page.route("**/model_list", lambda route: route.fulfill(status=503, body="not yet"), times=2)
    page.goto(server.url)
    page.get_by_text("The server's answer cannot be read (HTTP 503).").wait_for()
    page.locator("#modes input").first.wait_for(state="attached")
    assert notices(page) == ""


def test_server_that_is_down_at_the_call_is_told(ready, server):
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    server.is_down = True
    ready.locator("#paint").click()
    ready.get_by_text("The server's answer cannot be read (HTTP 502).").wait_for()
    server.is_down = False
    paint(ready)


# --- results ---------------------------------------------------------------------------------


def test_comparison_shows_both_pictures(ready, server):
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    paint(ready)
    assert ready.locator("#before").is_visible()
    split = ready.locator("#split")
    split.fill("25")
    clip = ready.locator("#before").evaluate("image => getComputedStyle(image).clipPath")
    assert clip == "inset(0px 75% 0px 0px)"
    split.focus()
    ready.keyboard.press("ArrowRight")
    assert float(split.input_value()) == 25.5
    ready.locator("#compare").click()
    assert ready.locator("#before").is_hidden()


def test_result_becomes_the_picture_with_its_mask(ready, server):
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    paint(ready)
    ready.locator("#reuse").click()
    ready.locator("#canvas").wait_for()
    ready.locator("#undo").wait_for()
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    paint(ready)
    assert np.array_equal(pixels(sent(server)["init_image"]), pixels(png("#288060")))


def test_download_has_the_parameters_that_a1111_reads(ready, server):
    ready.locator("#prompt").fill("a red star, ☆")
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    ready.locator("#count").select_option("2")
    ready.locator("#seed").fill("9")
    ready.locator("#lock").click()
    paint(ready)
    ready.locator("#samples button").nth(1).click()
    with ready.expect_download() as saving:
        ready.locator("#download").click()
    assert saving.value.suggested_filename == "all-10.png"
    picture = Image.open(saving.value.path())
    picture.load()
    first, *_, last = picture.text["parameters"].splitlines()
    assert first == "a red star, ☆"
    assert last.startswith("Steps: 31, Sampler: UniPC, CFG scale: 7.5, Seed: 10, Size: 64x64, ")
    assert "Model: all, Denoising strength: 0.7" in last
    assert np.array_equal(np.asarray(picture)[0, 0], pixels(png("#5a8060"))[0, 0])


def test_history_outlives_a_reload_and_is_shared_by_tabs(ready, server, context):
    other = context.new_page()
    problems = watch(other)
    open_playground(other, server.url)
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    ready.locator("#prompt").fill("a red star")
    paint(ready)
    other.locator("#history li").wait_for()  # without a reload
    ready.reload()
    ready.locator("#history li").wait_for()
    ready.locator("#modes input").first.wait_for(state="attached")
    ready.locator("#history button").first.click()
    ready.locator("#result").wait_for()
    ready.locator("#back").click()
    ready.locator("#canvas").wait_for()
    first = sent(server)
    ready.locator("#lock").click()
    paint(ready)
    again = sent(server)
    assert again["prompt"] == "a red star"
    assert np.array_equal(pixels(again["mask_image"]), pixels(first["mask_image"]))
    assert np.array_equal(pixels(again["init_image"]), pixels(first["init_image"]))
    other.locator("#forget").click()
    ready.locator("#history li").first.wait_for(state="detached")
    assert problems == []


def test_browser_without_a_history_paints_all_the_same(page, server):
    page.add_init_script("IDBFactory.prototype.open = () => { throw new Error('not here') }")
    open_playground(page, server.url)
    take_example(page)
    drag(page, (0.4, 0.5), (0.6, 0.5))
    paint(page)
    assert "This browser has no room for the history, or keeps none." in notices(page)


def test_reload_in_the_middle_goes_on(ready, server):
    server.service.is_stuck = True
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    ready.locator("#paint").click()
    ready.get_by_text("Waiting").first.wait_for()
    ready.reload()
    ready.locator("#progress").wait_for()
    server.service.is_stuck = False
    ready.locator("#result").wait_for()
    assert len(server.service.jobs) == 1


def test_tab_that_closes_in_the_middle_finds_its_result_later(ready, server, context):
    tab = context.new_page()
    open_playground(tab, server.url)
    take_example(tab)
    drag(tab, (0.4, 0.5), (0.6, 0.5))
    server.service.is_stuck = True
    tab.locator("#paint").click()
    tab.get_by_text("Waiting").first.wait_for()
    tab.close()
    server.service.is_stuck = False
    (job,) = server.service.jobs
    while not server.service.jobs[job].state.is_final:
        httpx2.post(f"{server.url}api/v4/dreambooth/fetch/{job}", trust_env=False)
    ready.reload()
    ready.locator("#history li").wait_for()


def test_two_tabs_paint_at_the_same_time(ready, server, context):
    other = context.new_page()
    open_playground(other, server.url)
    take_example(other, 1)
    for tab, prompt in ((ready, "first"), (other, "second")):
        tab.bring_to_front()
        tab.locator("#prompt").fill(prompt)
        drag(tab, (0.4, 0.5), (0.6, 0.5))
        tab.locator("#paint").click()
    for tab, prompt in ((ready, "first"), (other, "second")):
        tab.locator("#result-tools").wait_for()
        assert tab.locator("#after").get_attribute("alt") == f"Painted: {prompt}"
    ready.locator("#history li").nth(1).wait_for()


def test_every_address_that_was_asked_is_this_server_and_holds_no_key(page, server):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    server.service.keys = {"a-secret-key": "open"}
    page.goto(server.url)
    page.locator("#key").fill("a-secret-key")
    page.get_by_role("button", name="Use this key").click()
    page.locator("#modes input").first.wait_for(state="attached")
    take_example(page)
    drag(page, (0.4, 0.5), (0.6, 0.5))
    paint(page)
    addresses = [url for url in asked if not url.startswith(("data:", "blob:"))]
    assert len(addresses) > 20
    assert all(url.startswith(server.url) and "a-secret-key" not in url for url in addresses)
    assert json.dumps(server.calls).count("a-secret-key") == 0


def test_policy_of_the_page_stops_foreign_scripts(context, server):
    page = context.new_page()  # which may say that it stopped them
    open_playground(page, server.url)
    page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.injected = true";
          document.body.append(script);
          const image = "<img src=x onerror='window.injected = true'>";
          document.body.insertAdjacentHTML("beforeend", image);
        }"""
    )
    page.wait_for_timeout(300)
    assert page.evaluate("window.injected") is None


def test_text_of_the_server_is_shown_as_text(ready, server):
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    message = "<img src=x onerror=alert(1)><b>no</b>"
    server.service.outcome = JobFailure(code="internal", message=message)
    ready.locator("#paint").click()
    ready.locator(".notice.error").wait_for()
    assert message in notices(ready)
