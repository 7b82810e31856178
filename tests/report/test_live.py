"""A page that is served while its run goes on."""

import http.client
import json
import socket
import time
from dataclasses import replace

import pytest
from helpers.records import invented

from diffstruct.errors import ConfigurationError
from diffstruct.report import live
from diffstruct.report.live import LivePage

WHOLE = invented()


def until_step(step, status="running"):
    """The invented run when it had made so many steps."""
    events = [event for event in WHOLE.events if event.step <= step]
    widths = [
        replace(
            width,
            samples=[each for each in width.samples if each.step <= step and each.events <= len(events)],
        )
        for width in WHOLE.widths
    ]
    loss = [point for point in WHOLE.loss if point[0] <= step]
    return replace(WHOLE, step=step, status=status, events=events, widths=widths, loss=loss)


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch):
    """Those who have looked are not waited for at the end."""
    monkeypatch.setattr(live, "WAIT", 0.0)


@pytest.fixture
def often(monkeypatch):
    """A page that is brought up to date whenever it is told to."""
    monkeypatch.setattr(live, "EVERY", 0.0)
    monkeypatch.setattr(live, "SHARE", 1e9)


def ask(page, path, host=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=20)
    connection.request(
        "GET", path, headers={"Host": host or f"127.0.0.1:{page.port}", **headers}
    )  # http.client leaves its own out then
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer, body


def test_it_serves_the_page_and_what_is_new_and_only_that(often):
    now = [until_step(100)]
    with LivePage(lambda: now[0]) as page:
        answer, body = ask(page, "/")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "connect-src 'self'" in body
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Access-Control-Allow-Origin"] is None
        answer, body = ask(page, "/record.json")
        assert json.loads(body)["runs"][0]["step"] == 100
        known = answer.headers["ETag"]
        answer, body = ask(page, "/record.json", **{"If-None-Match": known})
        assert (answer.status, body) == (304, "")
        now[0] = until_step(200)
        page.show()
        answer, body = ask(page, "/record.json", **{"If-None-Match": known})
        assert (answer.status, json.loads(body)["runs"][0]["step"]) == (200, 200)
        for path in ("/record", "/../etc/passwd", "/?x", "/record.json/"):
            assert ask(page, path)[0].status == 404


@pytest.mark.parametrize("host", ["example.invalid", "127.0.0.1", "evil.invalid:{port}", "127.0.0.1:1", " "])
def test_a_name_that_is_not_this_machines_is_refused(host):
    with LivePage(lambda: WHOLE) as page:
        answer, body = ask(page, "/", host.format(port=page.port))
        assert answer.status == 403
        assert "first" not in body
        assert ask(page, "/record.json", f"localhost:{page.port}")[0].status == 200


def test_only_this_machine_is_served():
    with LivePage(lambda: WHOLE) as page:
        assert page.address == f"http://127.0.0.1:{page.port}/"
        assert page._server.socket.getsockname()[0] == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", page.port), timeout=5)


def test_the_run_is_looked_at_only_where_somebody_looks_and_not_too_often(monkeypatch):
    looks = []
    monkeypatch.setattr(live, "EVERY", 1_000.0)
    with LivePage(lambda: looks.append(1) or WHOLE) as page:
        page.show()
        assert len(looks) == 1  # the first one, before anybody could ask
        ask(page, "/")
        page.show()
        page.show()
        assert len(looks) == 2


def test_the_end_is_shown_to_those_who_look(often, monkeypatch):
    now = [until_step(900)]
    monkeypatch.setattr(live, "WAIT", 7.0)
    with LivePage(lambda: now[0]) as page:
        ask(page, "/")
        now[0] = until_step(1_000, "finished")
        page._seen.wait = lambda limit: seen.append((limit, json.loads(ask(page, "/record.json")[1])))
        seen = []
    ((limit, data),) = seen
    assert limit == 7.0
    assert data["runs"][0]["status"] == "finished"


def test_a_port_that_cannot_be_had_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for port in (taken.getsockname()[1], 70_000):
            with pytest.raises(ConfigurationError, match=f"cannot serve on port {port}: .*--port"):
                LivePage(lambda: WHOLE, port)


@pytest.mark.slow
def test_the_page_follows_the_run_and_keeps_what_the_user_has_chosen(browser, often):
    from helpers.chromium import watched
    from playwright.sync_api import expect

    now = [until_step(400)]
    with LivePage(lambda: now[0]) as served, watched(browser, served.address) as page:

        def at(step, status="running"):
            now[0] = until_step(step, status)
            served.show()
            expect(page.locator("#status")).to_have_text(f"{status}, step {step} of 1,000", timeout=20_000)

        expect(page.locator("#now")).to_have_text("step 400 of 400")
        at(500)
        expect(page.locator("#now")).to_have_text("step 500 of 500")  # it was at the end, and stays there
        page.locator("#slider").fill("300")
        page.select_option("#lives-width", "heads")
        page.focus("#chart-loss")
        page.keyboard.press("+")
        at(600)
        expect(page.locator("#now")).to_have_text("step 300 of 600")
        assert page.input_value("#lives-width") == "heads"
        time.sleep(0.1)
        zoomed = page.evaluate("document.getElementById('chart-loss').layout.xaxis.range.map(Number)")
        assert zoomed == pytest.approx([125, 375])
        now[0] = until_step(600, "finished")
        served.show()
        expect(page.locator("#status")).to_have_text("finished, step 600 of 1,000", timeout=20_000)
