"""Both pages for everybody: axe-core finds no serious fault, nothing is cut off at any size."""

import importlib.resources
import importlib.util

import pytest

from tests.browser.conftest import (
    SIZES,
    WAIT_MS,
    drag,
    open_playground,
    paint,
    size,
    take_example,
    watch,
)
from tests.browser.fake_server import ADMIN_KEY

pytestmark = pytest.mark.browser
SERIOUS = ("serious", "critical")
STATES = ["empty", "editing", "unfolded", "adapter", "result", "key", "code"]


@pytest.fixture(params=["light", "dark"])
def tab(chromium, request):
    """A tab in a colour scheme, where no colour is on its way to another one."""
    context = chromium.new_context(
        viewport=size("small"), color_scheme=request.param, reduced_motion="reduce"
    )
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    problems = watch(page)
    yield page
    context.close()
    assert problems == []


def faults(page) -> list[tuple[str, list[str]]]:
    """What axe-core calls serious or worse, with the elements."""
    if importlib.util.find_spec("axe_playwright_python") is None:
        pytest.skip("no axe-core: pip install axe-playwright-python")
    axe = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js").read_text()
    page.evaluate(axe)
    found = page.evaluate("axe.run()")["violations"]
    return [
        (fault["id"], [node["html"] for node in fault["nodes"]])
        for fault in found
        if fault["impact"] in SERIOUS
    ]


def reach(page, server, state: str) -> None:
    """Bring the playground into a state."""
    if state == "key":
        server.service.keys = {"good": "open"}
        page.goto(server.url)
        page.locator("#key-dialog").wait_for()
        return
    open_playground(page, server.url)
    if state == "empty":
        return
    take_example(page)
    drag(page, (0.4, 0.5), (0.6, 0.5))
    if state == "unfolded":
        page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        page.locator("#use-lora-ink").check()
        page.locator("#guidance").fill("99")
        page.locator("#paint").click()
        page.locator("#problem-guidance_scale").wait_for()
    elif state == "adapter":
        page.locator("summary", has_text="IP adapter").click()
        page.locator("#adapter").select_option("style")
        page.locator("#paint").click()
        page.locator("#problem-ip_adapter_image").wait_for()
    elif state == "result":
        paint(page)
    elif state == "code":
        page.locator("#code").click()
        page.locator("#code-dialog").wait_for()


@pytest.mark.parametrize("state", STATES)
def test_playground_has_no_serious_fault(tab, server, state):
    reach(tab, server, state)
    assert faults(tab) == []


@pytest.mark.parametrize("is_known", [False, True], ids=["key", "figures"])
def test_status_has_no_serious_fault(tab, server, is_known):
    tab.goto(f"{server.url}status")
    if is_known:
        tab.locator("#key").fill(ADMIN_KEY)
        tab.get_by_role("button", name="Show").click()
        tab.locator("#facts").wait_for()
    assert faults(tab) == []


@pytest.mark.parametrize("name", list(SIZES))
def test_nothing_is_cut_off_at_any_size(page, server, name, tmp_path):
    page.set_viewport_size(size(name))
    for state in ("empty", "editing", "result"):
        reach(page, server, state)
        page.screenshot(path=tmp_path / f"{name}-{state}.png")
        assert page.evaluate(CUT_OFF) == []


# Buttons and fields that lie outside of the page, or that their toolbar does not show.
CUT_OFF = """() => [...document.querySelectorAll("button, input, select, textarea")]
  .filter((element) => element.checkVisibility() && !element.closest(".film, .offscreen"))
  .filter((element) => {
    const box = element.getBoundingClientRect();
    const bar = element.closest(".tools, .progress, .go, .panel")?.getBoundingClientRect();
    const isOutside = box.left < 0 || box.right > innerWidth;
    return isOutside || (bar && (box.left < bar.left - 1 || box.right > bar.right + 1));
  })
  .map((element) => element.outerHTML)"""
