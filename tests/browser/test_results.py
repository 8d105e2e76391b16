"""What the playground does with results, and what no page may do."""

import json

import httpx2
import numpy as np
import pytest
from PIL import Image

from serve_app.types import JobFailure
from tests.browser.conftest import drag, open_playground, paint, pixels, take_example, watch
from tests.browser.fake_server import png
from tests.browser.playing import notices, sent

pytestmark = pytest.mark.browser


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


# As a picture is that the page has only just been given.
UNDECODED = """picture => Object.defineProperties(
  picture, {naturalWidth: {value: 0}, naturalHeight: {value: 0}})"""


def test_download_has_the_parameters_that_a1111_reads(ready, server):
    ready.locator("#prompt").fill("a red star, ☆")
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    ready.locator("#count").select_option("2")
    ready.locator("#seed").fill("9")
    ready.locator("#lock").click()
    paint(ready)
    ready.locator("#samples button").nth(1).click()
    ready.locator("#after").evaluate(UNDECODED)
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
