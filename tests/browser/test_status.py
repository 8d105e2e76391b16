"""The operator's view, over a server without figures."""

import httpx2
import pytest

from serve_app.types import JobFailure
from tests.browser.fake_server import ADMIN_KEY

pytestmark = pytest.mark.browser


def enter(page, key: str) -> None:
    page.locator("#key").fill(key)
    page.get_by_role("button", name="Show").click()


def test_figures_are_for_whoever_has_the_admin_key(page, server):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{server.url}status")
    enter(page, "a-wrong-key-of-some-length")
    page.get_by_text("This is not the admin key.").wait_for()
    enter(page, ADMIN_KEY)
    page.locator("#facts").wait_for()
    assert page.locator("#facts").inner_text().split("\n")[1:6:2] == ["running", "0.50", "15"]
    cells = page.locator("table.models tbody tr").first.locator("th, td").all_inner_texts()
    assert cells == ["a", "2", "12", "3", "8", "6.0", "17.0", "0.50", "200 ms", "20", "2"]
    assert page.locator("table.nodes tbody tr").count() == 2
    page.reload()  # the same session
    page.locator("#facts").wait_for()
    assert all(ADMIN_KEY not in url for url in asked)
    page.get_by_role("button", name="Forget the key").click()
    page.locator("#enter").wait_for()
    page.reload()
    page.locator("#enter").wait_for()


def test_jobs_that_failed_last_are_told_without_what_they_asked_for(page, server):
    server.service.outcome = JobFailure(code="out_of_memory", message="Too large.")
    body = {"model_id": "all", "prompt": "a secret", "instant_response": "no"}
    httpx2.post(f"{server.url}api/v4/dreambooth", json=body, trust_env=False)
    page.goto(f"{server.url}status")
    enter(page, ADMIN_KEY)
    row = page.locator("table.failures tbody tr").inner_text()
    assert "all" in row
    assert "out_of_memory" in row
    assert "secret" not in page.content()


def test_figures_are_refreshed_and_old_ones_are_called_so(page, server):
    page.goto(f"{server.url}status")
    enter(page, ADMIN_KEY)
    page.locator("#facts").wait_for()
    server.is_down = True
    page.get_by_text("These figures are old.").wait_for()
    server.is_down = False
    page.locator("#stale").wait_for(state="hidden")
