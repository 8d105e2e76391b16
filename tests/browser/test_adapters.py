"""IP adapters on the page: their picture, their strength, and what is told when one is missing."""

import numpy as np
import pytest

from tests.browser.conftest import drag, open_playground, paint, pixels, take_example
from tests.browser.fake_server import png

pytestmark = pytest.mark.browser
TEXT = "/api/v4/dreambooth"
INPAINT = "/api/v4/dreambooth/inpaint"


@pytest.fixture
def ready(page, server):
    """The playground that paints a star from text, with its add-ons unfolded."""
    open_playground(page, server.url)
    page.locator("#modes input[value=text2img]").check(force=True)
    page.locator("#prompt").fill("a star")
    page.locator("summary", has_text="IP adapter").click()
    return page


def sent(server, path: str = TEXT) -> dict:
    return [body for called, body in server.calls if called == path][-1]


def refer(page, data: bytes) -> None:
    """Choose the adapter's picture."""
    file = {"name": "r.png", "mimeType": "image/png", "buffer": data}
    page.set_input_files("#reference-file", file)
    page.locator("#reference-picture").wait_for()


def test_adapter_is_sent_with_its_picture_and_strength(ready, server):
    ready.locator("#adapter").select_option("style")
    assert ready.locator("#add-on-count").inner_text() == "1"
    refer(ready, png("#a04020", (96, 64)))
    ready.locator("#adapter-scale").fill("0.35")
    paint(ready)
    body = sent(server)
    assert (body["ip_adapter_id"], body["ip_adapter_scale"]) == ("style", 0.35)
    assert np.array_equal(pixels(body["ip_adapter_image"]), pixels(png("#a04020", (96, 64))))
    ready.locator("#adapter").select_option("")
    assert ready.locator("#adapter-set").is_hidden()
    paint(ready)
    assert not [name for name in sent(server) if name.startswith("ip_adapter")]


def test_adapter_is_there_beside_what_is_masked(ready, server):
    ready.locator("#modes input[value=inpaint]").check(force=True)
    take_example(ready)
    ready.locator("#adapter").select_option("style")
    refer(ready, png())
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    paint(ready)
    pictures = ("init_image", "mask_image", "ip_adapter_image")
    shapes = [pixels(sent(server, INPAINT)[name]).shape for name in pictures]
    assert shapes == [(512, 512, 3), (512, 512, 3), (64, 64, 3)]


def test_adapter_without_a_picture_is_told(ready, server):
    ready.locator("#adapter").select_option("style")
    for button in ("#paint", "#code"):
        ready.locator(button).click()
        words = "The IP adapter has no picture yet. Choose one, or set it to None."
        assert ready.locator("#problem-ip_adapter_image").inner_text() == words
        assert ready.locator("#reference").evaluate("one => one === document.activeElement")
    assert not [path for path, _ in server.calls if path == TEXT]


def test_large_picture_is_made_smaller_than_the_server_takes(ready, server):
    ready.locator("#adapter").select_option("style")
    refer(ready, png(size=(3000, 1500)))
    ready.get_by_text("It was made smaller here in the browser: 1024 \u00d7 512.").wait_for()
    paint(ready)
    assert pixels(sent(server)["ip_adapter_image"]).shape == (512, 1024, 3)


def test_picture_dropped_on_its_place_is_the_adapters(ready):
    ready.locator("#adapter").select_option("style")
    ready.evaluate(
        """(bytes) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "a.png", {type: "image/png"}));
          const how = {dataTransfer: data, bubbles: true, cancelable: true};
          document.querySelector("#reference").dispatchEvent(new DragEvent("drop", how));
        }""",
        list(png()),
    )
    ready.locator("#reference-picture").wait_for()
    assert ready.locator("#status").inner_text() == "a.png is the picture for the adapter."
    assert ready.locator("#modes input:checked").input_value() == "text2img"


def test_history_brings_the_adapters_picture_back(ready, server):
    ready.locator("#adapter").select_option("style")
    refer(ready, png("#a04020"))
    paint(ready)
    ready.reload()
    ready.locator("#history button").first.click()
    ready.locator("#back").click()
    ready.locator("#empty").wait_for()  # when all of it is back
    ready.locator("#lock").click()
    paint(ready)
    assert np.array_equal(pixels(sent(server)["ip_adapter_image"]), pixels(png("#a04020")))
    assert sent(server)["ip_adapter_id"] == "style"


def test_refused_picture_is_told_beside_it(ready, server):
    ready.locator("#adapter").select_option("style")
    refer(ready, png())
    ready.route(
        f"**{TEXT}",
        lambda route: route.fulfill(
            json={"status": "error", "message": {"ip_adapter_image": ["It cannot be read."]}}
        ),
    )
    ready.locator("#paint").click()
    assert ready.locator("#problem-ip_adapter_image").inner_text() == "It cannot be read."


def test_code_to_copy_names_the_adapters_picture(ready):
    ready.locator("#adapter").select_option("style")
    refer(ready, png())
    ready.locator("#code").click()
    ready.locator("#code-text", has_text="reference.png").wait_for()
    assert ready.locator("#code-links").inner_text() == "reference.png"
    with ready.expect_download() as saving:
        ready.locator("#code-links button").click()
    assert saving.value.suggested_filename == "reference.png"


def test_adapters_are_those_for_the_model_and_upscalers_are_no_models(ready):
    values = "options => options.map(({value}) => value)"
    assert ready.locator("#model option").evaluate_all(values) == ["all", "text"]
    assert ready.locator("#adapter option").evaluate_all(values) == ["", "style"]
    ready.locator("#model").select_option("text")
    assert ready.locator("#adapter-row").is_hidden()
