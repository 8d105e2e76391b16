"""Progress, keys and errors, as the playground shows them."""

import io
import threading

import pytest
from PIL import Image

from serve_app import errors
from serve_app.types import JobFailure
from tests.browser.conftest import drag, paint, take_example
from tests.browser.playing import is_red, notices, sent, until

pytestmark = pytest.mark.browser


def test_progress_is_polled_where_there_are_no_events(ready, server):
    server.service.stops_half_way = True
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    ready.locator("#paint").click()
    ready.get_by_text("Painting…").wait_for()
    assert ready.locator("#progress-bar").evaluate("bar => bar.value") > 0
    assert ready.locator("#paint").is_disabled()
    server.service.stops_half_way = False
    ready.locator("#result").wait_for()


def test_events_tell_place_steps_and_previews(ready, server):
    preview = {"image": "data:image/jpeg;base64," + jpeg()}
    goes_on = [threading.Event() for _ in range(3)]
    server.events = [
        [
            ("queued", {"place": 3, "eta": 2}),
            goes_on[0],
            ("started", {}),
            ("progress", {"step": 5, "steps": 20}),
            goes_on[1],
            ("preview", preview),
            ("progress", {"step": 6, "steps": 20}),
            goes_on[2],
            ("progress", {"step": 7, "steps": 20}),
            ("done", None),
        ]
    ]
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    ready.locator("#paint").click()
    ready.get_by_text("Waiting, place 3 in the queue, about 2 s…").wait_for()
    goes_on[0].set()
    ready.get_by_text("Painting, step 5 of 20…").wait_for()
    assert not is_red(ready)
    goes_on[1].set()
    ready.get_by_text("Painting, step 6 of 20…").wait_for()
    until(ready, lambda: is_red(ready))
    goes_on[2].set()
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
    page.route("**/model_list", lambda route: route.fulfill(status=503, body="not yet"))
    page.goto(server.url)
    page.get_by_text("The server's answer cannot be read (HTTP 503).").wait_for()
    page.unroute("**/model_list")
    page.locator("#modes input").first.wait_for(state="attached")
    assert notices(page) == ""


def test_server_that_is_down_at_the_call_is_told(ready, server):
    drag(ready, (0.4, 0.5), (0.6, 0.5))
    server.is_down = True
    ready.locator("#paint").click()
    ready.get_by_text("The server's answer cannot be read (HTTP 502).").wait_for()
    server.is_down = False
    paint(ready)
