"""Pages of runs that are out of the ordinary: hostile names, nothing recorded, very many steps."""

import re
from dataclasses import replace

import pytest
from helpers.chromium import watched
from helpers.records import invented

from diffstruct.errors import ConfigurationError
from diffstruct.report import Record, WidthRecord, WidthSample
from diffstruct.report.page import as_json, page, script, write
from diffstruct.report.plotly import plotly_js

HOSTILE = [
    "</script><script>window.broken = 1</script>",
    "<img src=https://example.invalid/a onerror=window.broken=1>",
    '"><svg onload="window.broken = 1">',
    "<!--<script>",
    "<b>bold</b> <a href='javascript:window.broken=1'>here</a> &amp; %{y} {{data}} \\u003c",
    "{{script}}",
]


def hostile():
    record = invented(names=HOSTILE[:3], starts=(3, 4, 5), title=HOSTILE[4])
    settings = {**dict.fromkeys(HOSTILE, 1), **{str(i): text for i, text in enumerate(HOSTILE)}}
    widths = [replace(width, places=HOSTILE[3], kind=HOSTILE[1]) for width in record.widths]
    unit = {"unit_of_importance": HOSTILE[0], "unit_of_loss": HOSTILE[1], "status": HOSTILE[5]}
    return replace(record, settings=settings, widths=widths, cost={HOSTILE[0]: [(0, 1.0)]}, **unit)


def test_no_name_ends_or_begins_an_element():
    html = page([hostile(), hostile()])
    assert len(re.findall("</script", html)) == 3
    assert "<script>window.broken" not in html
    assert "<img" not in html.split("<main>")[0]
    assert not set("<>&") & set(as_json([hostile()]))


@pytest.mark.slow
def test_a_page_with_hostile_names_shows_them_as_text_and_does_nothing_else(browser, tmp_path):
    path = write([hostile(), hostile()], tmp_path / "a b#%&'\".html")
    with watched(browser, path) as opened:
        for part in ("loss", "network", "lives", "importances", "cost", "events", "settings"):
            opened.evaluate(f"document.getElementById('{part}').scrollIntoView()")
            opened.wait_for_timeout(150)
        opened.check("[type=checkbox][data-run='1']")
        opened.select_option("#across", label=HOSTILE[0])
        opened.wait_for_timeout(150)
        assert opened.evaluate("typeof window.broken") == "undefined"
        assert (
            opened.evaluate("document.querySelectorAll('img, main a:not(.modebar-btn), script').length") == 3
        )
        shown = opened.locator("#settings-table").inner_text()
        assert all(text in shown for text in HOSTILE)
        assert opened.inner_text("#runs-table td.wide >> nth=0") == HOSTILE[4]


@pytest.mark.slow
def test_a_run_that_has_only_begun_says_what_is_missing(browser, tmp_path):
    bare = Record("begun", 0, None, [], [WidthRecord("a", "units", 1), WidthRecord("b", "blocks", 2)], [])
    with watched(browser, write([bare], tmp_path / "bare.html")) as opened:
        for part in ("network", "lives", "importances", "cost", "events", "settings"):
            opened.evaluate(f"document.getElementById('{part}').scrollIntoView()")
            opened.wait_for_timeout(150)
        assert opened.inner_text("#status") == "running, step 0"
        for part, says in {
            "network": "no importances",
            "importances": "no importances",
            "cost": "no cost",
            "events": "No events",
            "settings": "no settings",
        }.items():
            assert says in opened.inner_text(f"#{part}")
        opened.click("#play")
        assert opened.inner_text("#now") == "step 0 of 0"


def test_a_page_of_a_long_run_of_a_wide_network_is_small():
    samples = [WidthSample(step * 1_000, [0.5 + step] * 1_000, 0.3, 0) for step in range(300)]
    loss = [(step, 50 / (1 + step / 1_000)) for step in range(300_000)]
    record = Record("long", 300_000, 300_000, loss, [WidthRecord("wide", "units", 1_000, "", samples)], [])
    assert len(page([record]).encode()) < 10_000_000


def test_a_page_brings_its_scripts_and_forbids_everything_else():
    html = page([invented()])
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("style-src")[0]
    assert "connect-src 'self'" in page([invented()], live=True)
    assert script() in html
    own = html.replace(plotly_js(), "")
    # The name of SVG, which nobody asks for.
    assert re.findall(r"https?://[^\"]+", own) == ["http://www.w3.org/2000/svg"] * 2


def test_writing_replaces_a_page_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")
    with monkeypatch.context() as patched:
        patched.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(ConfigurationError, match=r"cannot write the report .*page\.html: No space left"):
            write([invented()], path)
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]
    assert path.read_text() == "old"
    write([invented()], path)
    assert path.read_text().startswith("<!doctype html>")
    with pytest.raises(ConfigurationError, match="cannot write the report"):
        write([invented()], tmp_path / "none" / "page.html")
    with pytest.raises(ConfigurationError, match="no file to write the report to"):
        write([invented()], "")


def test_without_plotly_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    plotly_js.cache_clear()
    with pytest.raises(ConfigurationError, match=r"pip install 'diffstruct\[report\]'"):
        page([invented()])


def test_no_run_is_no_report():
    with pytest.raises(ConfigurationError, match="needs a run"):
        page([])
