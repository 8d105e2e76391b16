"""Records a session of the playground with the demo models: frames, a contact sheet, the README's
screenshot, and the seconds from the start of the service to the first picture.

    python -m tests.browser.record out/session
"""

import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tests.browser.conftest import drag, launched, open_playground, running, size, take_example

WAIT_MS = 300_000
STEPS = "50"  # of fewer a small model has no time to show any
TILE = (640, 400)
COLUMNS = 2
HEAD_PX = 30  # of a caption


class Recorder:
    """Takes frames of a tab, with captions."""

    def __init__(self, page, folder: Path) -> None:
        self.page = page
        self.folder = folder
        self.frames: list[tuple[str, Path]] = []

    def take(self, caption: str) -> Path:
        path = self.folder / f"{len(self.frames) + 1:02d}-{caption}.png"
        self.page.screenshot(path=path)
        self.frames.append((caption, path))
        return path

    def sheet(self) -> Image.Image:
        """All frames beside one another, each below its caption."""
        height = TILE[1] + HEAD_PX
        rows = -(-len(self.frames) // COLUMNS)
        sheet = Image.new("RGB", (COLUMNS * TILE[0], rows * height), "#fff")
        pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
        for number, (caption, path) in enumerate(self.frames):
            x, y = number % COLUMNS * TILE[0], number // COLUMNS * height
            tile = Image.open(path).convert("RGB").resize(TILE, Image.Resampling.LANCZOS)
            pen.text((x + 12, y + 5), f"{number + 1}  {caption}", "#111", font)
            sheet.paste(tile, (x, y + HEAD_PX))
        return sheet


def record(page, url: str, recorder: Recorder) -> None:
    """Open, take a picture, brush, prompt, watch, look, compare."""
    open_playground(page, url)
    page.locator("#model").select_option("demo-inpaint")
    recorder.take("open")
    take_example(page)
    page.locator("#prompt").fill("")  # the example has one
    recorder.take("drop")
    page.locator("#size").fill("120")
    drag(page, (0.41, 0.27), (0.6, 0.3), (0.42, 0.44), (0.6, 0.46))
    recorder.take("brush")
    page.locator("#prompt").fill("a big green triangle on a blue background")
    more = page.locator("summary", has_text="More")
    more.click()
    page.locator("#safety").uncheck()  # of what is checked there are no previews
    more.click()
    sampling = page.locator("summary", has_text="Sampling")
    sampling.click()
    page.locator("#steps").fill(STEPS)
    sampling.click()
    recorder.take("prompt")
    page.locator("#paint").click()
    # By hand: the page's policy keeps Playwright's own waiting from evaluating text.
    while page.locator("#progress-bar").evaluate("bar => bar.value") < 0.6:
        page.wait_for_timeout(50)
    recorder.take("preview")
    page.locator("#result-tools").wait_for()


def main(folder: Path) -> None:
    """Write everything into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as data,
        running(Path(data)) as service,
        launched() as browser,
    ):
        page = browser.new_page(viewport=size("desktop"))
        page.set_default_timeout(WAIT_MS)
        recorder = Recorder(page, folder)
        record(page, service.url, recorder)
        done_s = time.monotonic() - begun
        page.locator("#compare").click()
        recorder.take("result")
        page.locator("#compare").click()
        page.locator("#split").fill("46")
        screenshot = recorder.take("compare")
    recorder.sheet().quantize(256, kmeans=1).save(folder / "sheet.png", optimize=True)
    Image.open(screenshot).convert("RGB").quantize(256, kmeans=1).save(
        folder / "playground.png", optimize=True
    )
    print(f"ready after {service.start_s:.1f} s, first picture after {done_s:.1f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
