"""The page as a user meets it, in a browser: every control, by pointer and by keyboard."""

import time

import pytest
from helpers.chromium import watched
from helpers.records import invented
from playwright.sync_api import expect

from diffstruct.report.page import write

pytestmark = pytest.mark.slow

CONTROLS = "button, select, input, summary, nav a, a.skip, [tabindex='0']"
SHOWN = f"""[...document.querySelectorAll("{CONTROLS}")].filter(
    (each) => each.checkVisibility() && !each.disabled && !each.closest(".modebar"))"""
NAME = """(each) => each.id || each.dataset.width || each.dataset.sort || each.dataset.run
    || each.getAttribute("href") || each.getAttribute("aria-label") || each.textContent.trim()"""


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return write([invented()], tmp_path_factory.mktemp("one") / "page.html")


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    records = [invented(seed, title=f"run {seed}", samples=8) for seed in range(4)]
    return write(records, tmp_path_factory.mktemp("several") / "page.html")


def range_of(page, chart, axis="xaxis"):
    return page.evaluate(f"document.getElementById('{chart}').layout.{axis}.range.map(Number)")


def until(page, holds):
    """Wait until something holds; the page's policy forbids Playwright's own way, which evaluates text."""
    end = time.monotonic() + 30
    while not page.evaluate(holds):
        assert time.monotonic() < end, holds
        page.wait_for_timeout(30)


def settle(page):
    """Wait until all that has changed is drawn: two frames, for one may be asked for in the first."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def traces(page, chart):
    return page.evaluate(f"document.getElementById('{chart}').data.map((each) => each.name)")


def see(page, part):
    page.evaluate(f"document.getElementById('{part}').scrollIntoView()")
    until(page, f"document.querySelector('#{part} .js-plotly-plot, #{part} canvas, #{part} tr') !== null")
    settle(page)


def test_every_control_of_one_run_does_what_it_says(browser, one):
    record = invented()
    with watched(browser, one) as page:
        assert page.title() == page.inner_text("h1") == "invented"
        expect(page.locator("#status")).to_have_text("finished, step 1,000 of 1,000")
        assert f"in {len(record.events)} events" in page.inner_text("#tiles")
        controls = set(page.evaluate(f"{SHOWN}.map({NAME})"))

        # The slider shows another moment, everywhere.
        page.locator("#slider").fill("500")
        settle(page)
        expect(page.locator("#now")).to_have_text("step 500 of 1,000")
        expect(page.locator("#network-title")).to_have_text("The network at step 500")
        sizes = {width.name: width.start for width in record.widths}
        sizes |= {event.width: event.size for event in record.events if event.step <= 500}
        line, area = "#chart-loss .cursor", "#chart-loss .nsewdrag[data-subplot=xy]"
        place, around = page.locator(line).bounding_box(), page.locator(area).bounding_box()
        assert place["x"] == pytest.approx(around["x"] + around["width"] / 2, abs=2)
        see(page, "network")
        said = page.get_attribute("#network-canvas", "aria-label")
        assert said == "The network at step 500: " + ", ".join(
            f"{name} {size} units" for name, size in sizes.items()
        )
        page.click("#network summary")
        table = page.locator("#sizes-table tbody tr").all_inner_texts()
        assert [line.split("\t")[2] for line in table] == [str(size) for size in sizes.values()]
        page.click("#play")
        assert page.get_attribute("#play", "aria-label") == "Pause"
        until(page, "document.getElementById('slider').valueAsNumber > 510")
        page.click("#play")
        assert page.get_attribute("#play", "aria-pressed") == "false"
        page.locator("#slider").fill("1000")

        # Loss and sizes.
        see(page, "loss")
        for box, axis in (("log-loss", "yaxis"), ("log-sizes", "yaxis2")):
            page.check(f"#{box}")
            settle(page)
            assert page.evaluate(f"document.getElementById('chart-loss').layout.{axis}.type") == "log"
            page.uncheck(f"#{box}")
        assert traces(page, "chart-loss") == [
            "loss", "floor", "first", "heads", "second", "added", "removed",
        ]  # fmt: skip
        for name in ("first", "heads", "second"):
            chip = page.locator(f"#chips button[data-width={name}]")
            chip.click()
            settle(page)
            assert name not in traces(page, "chart-loss")
            chip.click()
            settle(page)
            assert chip.get_attribute("aria-pressed") == "true"
            assert name in traces(page, "chart-loss")

        # The lives of one width's units, ordered.
        see(page, "lives")
        lives = {
            width.name: width.start + sum(e.added for e in record.events if e.width == width.name)
            for width in record.widths
        }
        for name, count in lives.items():
            page.select_option("#lives-width", name)
            settle(page)
            assert f"{count} units came in all" in page.inner_text("#lives-hint")
            assert page.evaluate("document.getElementById('chart-lives').data[0].z.length") == count
            assert page.input_value("#importances-width") == name
        rows = "document.getElementById('chart-lives').shown.lives.join()"
        orders = set()
        for order in ("born", "length", "importance"):
            page.select_option("#lives-order", order)
            settle(page)
            orders.add(page.evaluate(rows))
        assert len(orders) == 3

        # Importances.
        see(page, "importances")
        page.select_option("#importances-width", "first")
        settle(page)
        bars = page.evaluate("document.getElementById('chart-sorted').data[0].customdata.map(Number)")
        last = sorted(record.widths[0].samples[-1].importances, reverse=True)
        assert bars == pytest.approx(last, rel=1e-3)
        kinds = set()
        for tick in (page.uncheck, page.check):
            tick("#log-importances")
            settle(page)
            kinds.add(page.evaluate("document.getElementById('chart-spread').layout.yaxis.type"))
        assert kinds == {"linear", "log"}

        # Cost, with the budget of one of two.
        see(page, "cost")
        assert "budget 2,500" in page.inner_text("#cost-hint")
        assert len(page.evaluate("document.getElementById('chart-cost').data")) == 3

        # Events: paged, filtered, sorted, and a way to the moment of each.
        see(page, "events")
        count = len(record.events)
        expect(page.locator("#events-page")).to_have_text(f"1 to 50 of {count}")
        page.click("#events-next")
        expect(page.locator("#events-page")).to_have_text(f"51 to {count} of {count}")
        page.click("#events-first")
        page.click("#events-last")
        expect(page.locator("#events-next")).to_be_disabled()
        page.click("#events-previous")
        expect(page.locator("#events-page")).to_have_text(f"1 to 50 of {count}")
        page.select_option("#events-width", label="heads")
        page.select_option("#events-kind", "removed")
        settle(page)
        kept = [event for event in record.events if event.width == "heads" and event.removed]
        lines = [line.split("\t") for line in page.locator("#events-table tbody tr").all_inner_texts()]
        assert [(line[0], line[1], line[6]) for line in lines] == [
            (str(event.step), "heads", ", ".join(map(str, event.removed))) for event in kept
        ]
        for column in ("step", "width", "removed", "added", "size", "cost"):
            page.click(f"[data-sort={column}]")
            settle(page)
            direction = page.locator(f"th:has([data-sort={column}])").get_attribute("aria-sort")
            assert direction == ("descending" if column == "step" else "ascending")
        page.click("[data-sort=step]")
        page.locator("#events-table tbody button").first.click()
        expect(page.locator("#now")).to_have_text(f"step {kept[0].step} of 1,000")

        see(page, "settings")
        assert page.locator("#settings-table tr").all_inner_texts()[1] == "price\t0.3"
        for link in page.locator("nav a").all():
            link.click()
            assert page.evaluate("location.hash") == link.get_attribute("href")
        page.click("#theme")
        assert page.get_attribute("html", "data-theme") == "dark"
        page.click("#theme")

        # Nothing that can be operated was left out.
        ids = "slider play log-loss log-sizes lives-width lives-order importances-width log-importances"
        ids += " events-width events-kind events-first events-previous events-next events-last theme"
        columns = {"step", "width", "removed", "added", "size", "cost"}
        links = {"#loss", "#network", "#lives", "#importances", "#cost", "#events", "#settings"}
        operated = {*ids.split(), "first", "heads", "second", "Sizes as a table"} | columns | links
        by_keys = {"chart-loss", "chart-lives", "chart-sorted", "chart-spread", "chart-cost"}
        scrolls = {"Sizes as a table", "Table of events", "Table of settings"}
        steps = {name for name in controls if name.startswith("Go to step")}
        assert controls - operated - by_keys - scrolls - steps == set()


def test_charts_zoom_and_tell_what_is_under_the_pointer(browser, one):
    with watched(browser, one) as page:
        box = page.locator("#chart-loss .nsewdrag[data-subplot=xy]").bounding_box()
        left, top = box["x"], box["y"] + box["height"] / 2
        page.mouse.move(left + 0.5 * box["width"], top)
        page.wait_for_selector("#chart-loss .hoverlayer .legend, #chart-loss .hovertext")
        page.mouse.move(left + 0.2 * box["width"], top)
        page.mouse.down()
        page.mouse.move(left + 0.6 * box["width"], top, steps=4)
        page.mouse.up()
        until(page, "document.getElementById('chart-loss').layout.xaxis.range[0] > 100")
        assert range_of(page, "chart-loss") == pytest.approx([200, 600], abs=10)
        page.locator("#slider").fill("700")  # which leaves the zoom as it is
        page.check("#log-sizes")
        settle(page)
        assert range_of(page, "chart-loss") == pytest.approx([200, 600], abs=10)
        page.mouse.dblclick(left + 0.5 * box["width"], top)
        until(page, "document.getElementById('chart-loss').layout.xaxis.range[0] < 1")

        page.wait_for_timeout(500)  # or the next click would be a third one of the same place
        page.mouse.move(left + 0.4 * box["width"], top)
        page.mouse.move(left + 0.3 * box["width"], top)
        hovered = "document.getElementById('chart-loss')._hoverdata?.[0].x"
        until(page, f"Math.abs({hovered} - 300) < 15")  # a click is about what is under the pointer
        page.mouse.click(left + 0.3 * box["width"], top)
        until(page, "Math.abs(document.getElementById('slider').valueAsNumber - 300) < 15")

        see(page, "lives")
        box = page.locator("#chart-lives .nsewdrag").first.bounding_box()
        page.mouse.move(box["x"] + 0.05 * box["width"], box["y"] + 3)
        page.wait_for_selector("#tip:not([hidden])")
        assert "unit 1 of all that came\nthere from step 0" in page.inner_text("#tip")

        see(page, "network")
        box = page.locator("#network-canvas").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
        assert page.inner_text("#tip").startswith("heads: ")
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 20)
        assert page.input_value("#lives-width") == "heads"


def test_all_of_it_can_be_reached_and_used_by_keyboard(browser, tmp_path):
    with watched(browser, write([invented(events=8)], tmp_path / "page.html")) as page:
        for part in ("network", "lives", "importances", "cost", "events", "settings", "loss"):
            see(page, part)
        expected = page.evaluate(f"{SHOWN}.map({NAME})")
        page.evaluate("scrollTo(0, 0)")
        reached = []
        for _ in range(len(expected) + 60):
            page.keyboard.press("Tab")
            name, look = page.evaluate(
                f"""((each) => each === document.body ? ["", ""]
                : [({NAME})(each), getComputedStyle(each).outlineStyle])(document.activeElement)"""
            )
            if not name:
                break
            reached.append(name)
            assert look != "none", name
        assert set(expected) - set(reached) == set()
        assert reached[0] == "#loss"
        assert [name for name in reached if name in expected] == expected

        page.focus("#slider")
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert page.input_value("#slider") == "4"
        assert page.get_attribute("#slider", "aria-valuetext") == "step 4 of 1,000"
        page.focus("#play")
        page.keyboard.press("Space")
        assert page.get_attribute("#play", "aria-pressed") == "true"
        page.keyboard.press("Space")

        page.focus("#chart-loss")
        for key, expected_range in (
            ("+", [250, 750]), ("ArrowRight", [350, 850]), ("ArrowLeft", [250, 750]), ("-", [0, 1_000]),
            ("+", [250, 750]), ("0", [0, 1_000]),
        ):  # fmt: skip
            page.keyboard.press(key)
            settle(page)
            assert range_of(page, "chart-loss") == pytest.approx(expected_range)

        # Everything that can be operated has a name for those who do not see it.
        unnamed = f"""{SHOWN}.filter((each) => !(each.getAttribute("aria-label") || each.labels?.length
            || each.textContent.trim()))"""
        assert page.evaluate(f"{unnamed}.map({NAME})") == []


def test_dark_follows_the_system_until_the_button_is_pressed(browser, one):
    ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    ink = "document.getElementById('chart-loss').layout.font.color"
    with watched(browser, one, color_scheme="dark") as page:
        assert page.get_attribute("#theme", "aria-pressed") == "true"
        assert max(page.evaluate(ground)) < 60
        dark = page.evaluate(ink)
        page.emulate_media(color_scheme="light")
        settle(page)
        assert min(page.evaluate(ground)) > 200
        assert page.evaluate(ink) != dark
        page.click("#theme")
        settle(page)
        assert page.evaluate(ink) == dark
        page.emulate_media(color_scheme="dark")
        page.emulate_media(color_scheme="light")
        assert page.get_attribute("html", "data-theme") == "dark"


SIDEWAYS = "document.documentElement.scrollWidth - innerWidth"


def test_a_phone_shows_all_of_it_without_scrolling_sideways(browser, one):
    phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
    with watched(browser, one, **phone) as page:
        for part in ("loss", "network", "lives", "importances", "cost", "events", "settings"):
            see(page, part)
        assert page.evaluate("innerWidth") == 360
        assert page.evaluate(SIDEWAYS) == 0
        wide = """[...document.querySelectorAll(".chart .main-svg, canvas, select, .controls")]
            .filter((each) => each.getBoundingClientRect().right > 360).map((each) => each.outerHTML)"""
        assert page.evaluate(wide) == []
        assert page.evaluate("document.querySelectorAll('.js-plotly-plot').length") == 5
        see(page, "loss")
        page.tap("#chart-loss .modebar-btn[data-val=in]")
        settle(page)
        assert range_of(page, "chart-loss") == pytest.approx([250, 750])


def test_of_several_runs_single_ones_are_drawn_and_shown(browser, several):
    with watched(browser, several) as page:
        assert page.title() == "4 runs"
        medians = ["quartiles", "quartiles", "median"]
        assert traces(page, "chart-loss")[:6] == medians * 2
        page.check("[type=checkbox][data-run='2']")
        settle(page)
        assert traces(page, "chart-loss")[6:8] == ["run 2", "run 2"]
        page.uncheck("[type=checkbox][data-run='2']")
        settle(page)
        assert "run 2" not in traces(page, "chart-loss")
        all_units = page.evaluate("[...document.getElementById('chart-loss').data[5].y].at(-1)")
        page.select_option("#across", label="heads")
        settle(page)
        assert page.evaluate("[...document.getElementById('chart-loss').data[5].y].at(-1)") < all_units
        page.check("[type=radio][data-run='3']")
        settle(page)
        assert page.inner_text("#status").startswith("run 3: finished")
        assert f"in {len(invented(3).events)} events" in page.inner_text("#tiles")
        see(page, "settings")
        assert page.locator("#settings-table tr").all_inner_texts()[0] == "seed\t3"
        page.set_viewport_size({"width": 360, "height": 740})
        svg = "Math.max(...[...document.querySelectorAll('.main-svg')].map((each) => each.clientWidth))"
        until(page, f"{svg} <= 360")  # charts fit the window again
        assert page.evaluate(SIDEWAYS) == 0
