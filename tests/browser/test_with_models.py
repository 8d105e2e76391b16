"""The whole way from the browser to the demo models and back."""

import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from serve_app.types import JobState
from tests.browser.conftest import drag, open_playground, paint, pixels, take_example
from tests.browser.fake_server import ADMIN_KEY

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
SLOW_MS = 240_000  # a picture on a busy CPU
INPAINT = "api/v4/dreambooth/inpaint"


@pytest.fixture
def ready(page, service):
    """The playground with an example picture and the inpainting model, few steps, one seed."""
    page.set_default_timeout(SLOW_MS)
    open_playground(page, service.url)
    page.locator("#model").select_option("demo-inpaint")
    take_example(page)
    page.locator("summary", has_text="Sampling").click()
    page.locator("#steps").fill("4")
    page.locator("#seed").fill("7")  # what is painted, and what the safety check says of it
    page.locator("#lock").click()
    return page


def sent_by(page) -> dict:
    """Fills with the body of the next inpainting call."""
    bodies: dict = {}

    def note(request):
        if request.url.endswith(INPAINT):
            bodies.update(request.post_data_json)

    page.on("request", note)
    return bodies


def shown(page) -> np.ndarray:
    """The result as the page got it."""
    data = page.evaluate(
        """async () => {
          const picture = document.getElementById("after");
          await picture.decode();
          const canvas = document.createElement("canvas");
          [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
          canvas.getContext("2d").drawImage(picture, 0, 0);
          return canvas.toDataURL();
        }"""
    )
    return pixels(data)


def test_picture_changes_inside_the_stroke_and_nowhere_else(ready):
    body = sent_by(ready)
    drag(ready, (0.35, 0.25), (0.65, 0.35), (0.4, 0.45))
    paint(ready)
    before, mask = pixels(body["init_image"]), pixels(body["mask_image"])[:, :, 0]
    after = shown(ready)
    assert after.shape == before.shape == (512, 512, 3)
    is_inside = mask >= 128
    changed = (after != before).any(axis=2)
    assert 0.02 < is_inside.mean() < 0.2
    assert not changed[~is_inside].any()
    assert changed[is_inside].mean() > 0.5


def test_cancel_ends_the_job_on_the_server(ready, service):
    drag(ready, (0.3, 0.3), (0.7, 0.3))
    ready.locator("#steps").fill("50")
    jobs = []
    ready.on("response", lambda answer: INPAINT in answer.url and jobs.append(answer.json()["id"]))
    ready.locator("#paint").click()
    ready.get_by_text("Painting").first.wait_for()
    ready.locator("#cancel").click()
    ready.locator("#progress").wait_for(state="hidden")
    assert ready.locator("#canvas").is_visible()
    (job,) = jobs
    answer = ready.evaluate(
        """async (url) => (await fetch(url, {method: "POST", body: "{}"})).json()""",
        f"{service.url}api/v4/dreambooth/fetch/{job}",
    )
    assert (answer["status"], answer["reason"]) == ("failed", JobState.CANCELLED)


@pytest.mark.parametrize("language", ["curl", "python", "javascript"])
def test_code_to_copy_paints_the_same_request(ready, service, tmp_path, language):
    drag(ready, (0.4, 0.3), (0.6, 0.3))
    ready.locator("#prompt").fill("a star, 'quoted' and \"so\" $HOME")
    ready.locator("#code").click()
    ready.locator(f"#languages input[value={language}]").check(force=True)
    ready.locator("#code-text:not(:empty)").wait_for()
    text = ready.locator("#code-text").inner_text()
    for name in ("picture.png", "mask.png"):
        with ready.expect_download() as saving:
            ready.locator("#code-links button", has_text=name).click()
        saving.value.save_as(tmp_path / name)
    if language == "curl":
        command = ["bash", "-c", text]
    elif language == "python":
        command = [sys.executable, "-c", text]
    else:
        (tmp_path / "a.mjs").write_text(text)
        command = ["node", "a.mjs"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=True
    )
    assert f"{service.url}files/" in done.stdout, (done.stdout, done.stderr)


def test_status_shows_the_numbers_of_top(page, service):
    page.goto(f"{service.url}status")
    page.locator("#key").fill(ADMIN_KEY)
    page.get_by_role("button", name="Show").click()
    page.locator("#facts").wait_for()
    wanted = {"running", "Models", "demo-inpaint", "Deployments", "Ingress", "Janitor", "Nodes"}
    begun = time.monotonic()
    while not wanted <= set((text := page.locator("#overview").inner_text()).split()):
        assert time.monotonic() - begun < 120, text  # figures come late, and in parts
        time.sleep(1)


def test_pictures_of_the_page_are_those_of_the_files(ready, tmp_path):
    """Downloaded, it is the same picture, with its parameters."""
    drag(ready, (0.45, 0.3), (0.55, 0.3))
    paint(ready)
    with ready.expect_download() as saving:
        ready.locator("#download").click()
    picture = Image.open(saving.value.path())
    assert np.array_equal(np.asarray(picture.convert("RGB")).astype(int), shown(ready))
    assert "Steps: 4, Sampler: DDIM, CFG scale: 3" in picture.text["parameters"]
