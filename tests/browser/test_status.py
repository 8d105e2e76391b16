"""The operator's view, over a server without figures."""

from tests.browser.fake_server import ADMIN_KEY


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
    assert "unknown" in page.locator("#facts").inner_text()
    page.reload()  # the same session
    page.locator("#facts").wait_for()
    assert all(ADMIN_KEY not in url for url in asked)
    page.get_by_role("button", name="Forget the key").click()
    page.locator("#enter").wait_for()
    page.reload()
    page.locator("#enter").wait_for()


def test_figures_are_refreshed_and_old_ones_are_called_so(page, server):
    page.goto(f"{server.url}status")
    enter(page, ADMIN_KEY)
    page.locator("#facts").wait_for()
    server.is_down = True
    page.get_by_text("These figures are old.").wait_for()
    server.is_down = False
    page.locator("#stale").wait_for(state="hidden")
