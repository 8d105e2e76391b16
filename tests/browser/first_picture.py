"""Measures the seconds from `make run` to the first painted picture in a browser that is open.

    python -m tests.browser.first_picture --rounds 3

Nobody waits for the models: the prompt is typed and "Paint" clicked as soon as the page is there.
The first round starts in an empty folder; later ones find what it left.
"""

import argparse
import tempfile
import time
from pathlib import Path

from tests.browser.conftest import answers, launched, open_playground, running, size

PROMPT = "a big green triangle on a blue background"
WAIT_MS = 600_000


def measure(browser, folder: Path) -> tuple[dict[str, float], str]:
    """Return seconds since the start by what happened, and what the page says of the picture."""
    begun = time.monotonic()
    times: dict[str, float] = {}

    def note(what: str) -> None:
        times[what] = time.monotonic() - begun

    with running(folder, answers) as service:
        note("address answers")
        page = browser.new_page(viewport=size("desktop"))
        page.set_default_timeout(WAIT_MS)
        open_playground(page, service.url)
        note("page offers models")
        page.locator("#modes input[value=text2img]").check(force=True)
        page.locator("#prompt").fill(PROMPT)
        page.locator("#paint").click()
        page.locator("#result").wait_for()
        note("first preview")
        page.locator("#result-tools").wait_for()
        assert page.locator("#after").evaluate("one => one.decode().then(() => one.naturalWidth)")
        note("picture")
        caption = page.locator("#caption").inner_text()
        page.close()
    return times, caption


def main() -> None:
    """Print one line for each round."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder, launched() as browser:
        for number in range(rounds):
            times, caption = measure(browser, Path(folder))
            figures = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in times.items())
            print(f"{number + 1}: {figures} ({caption})", flush=True)


if __name__ == "__main__":
    main()
