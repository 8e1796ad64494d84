"""Reports opened in a browser: nothing goes wrong, nothing is fetched, every control works."""

from __future__ import annotations

import base64
import json
import shutil
from itertools import pairwise

import pytest

import lightlike as ll
from lightlike.figures.chart import csv_of
from lightlike.figures.length import plot_length
from lightlike.figures.plateau import plot_plateau

webdriver = pytest.importorskip("selenium.webdriver")
WebDriverWait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait
DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(not (DRIVER and BROWSER), reason="needs Debian's chromium-driver"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
TABULATOR, ENTER = "\ue004", "\ue007"
# Contrast (WCAG 2) of each text with the page, and what it says.
CONTRAST = """
  const parts = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => parts(c).slice(0, 3).map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const back = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll("main *, header > *:not(.controls), footer")]
    .filter(e => e.offsetParent && !e.closest("svg, pre, button") &&
                 [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
    .map(e => { const l = light(getComputedStyle(e).color);
                return [(Math.max(l, back) + .05) / (Math.min(l, back) + .05),
                        e.textContent.trim().slice(0, 40)]; });
"""
QUIET = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
    "disable-background-networking", "disable-component-update", "disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    folder = tmp_path_factory.mktemp("profile")
    for argument in (*QUIET, f"user-data-dir={folder}"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(scope="module", params=["measured", "unlabelled", "compared", "followed"])
def written(request, tmp_path_factory):
    """The report of each kind of result, written once."""
    folder = tmp_path_factory.mktemp(request.param)
    return ll.report(request.getfixturevalue(request.param), folder / "report.html")


@pytest.fixture
def opened(written, browser):
    return open_page(browser, written)


@pytest.fixture(scope="module")
def one(measured, tmp_path_factory):
    return ll.report(measured, tmp_path_factory.mktemp("one") / "report.html")


def open_page(browser, path, *, media="", dark=False):
    feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    emulated = {"media": media, "features": [feature]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", emulated)
    browser.get_log("performance")
    browser.set_window_size(1200, 900)
    browser.get(path.as_uri())
    return browser


def requests(browser):
    """What the page has asked for, but for what is in the page itself."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    urls = [p["request"]["url"] for p in asked if p["documentURL"] == browser.current_url]
    return [url for url in urls if not url.startswith("data:")]


def test_nothing_goes_wrong_and_nothing_is_fetched(opened):
    """No message on the console; the file itself is the only request."""
    assert opened.get_log("browser") == []
    assert requests(opened) == [opened.current_url]


def test_units_and_colours_change(opened):
    """Buttons say which is chosen; amounts follow."""
    shown = "return [...document.querySelectorAll(arguments[0])].filter(e => e.offsetParent).length"
    for unit, other in (("bits", "nats"), ("nats", "bits")):
        opened.find_element("css selector", f"[data-units-choice={unit}]").click()
        assert opened.execute_script(shown, f"main .{unit}") > 0
        assert opened.execute_script(shown, f"main .{other}") == 0
        titles = opened.find_elements("css selector", "figure h3, figure text")
        assert not any(f" {other}" in t.text for t in titles if t.is_displayed())
    back = "return getComputedStyle(document.body).backgroundColor"
    seen = []
    for theme in ("light", "dark"):
        button = opened.find_element("css selector", f"[data-theme-choice={theme}]")
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        seen.append(opened.execute_script(back))
    assert seen[0] != seen[1]


def test_tables_sort_by_any_column(opened):
    """Largest first, then smallest, by the numbers and not by their digits; no row is lost."""
    script = """
      const out = [];
      for (const t of document.querySelectorAll("table")) {
        const count = t.tBodies[0].rows.length;
        [...t.tHead.rows[0].cells].forEach((head, c) => {
          const get = () => [...t.tBodies[0].rows].map(r => r.cells[c].dataset.sort);
          const button = head.querySelector("button");
          button.click(); const down = get(), sorted = head.getAttribute("aria-sort");
          button.click(); out.push([down, get(), sorted, head.getAttribute("aria-sort"),
            count, [...t.querySelectorAll("[aria-sort]")].length]);
        });
      }
      return out;
    """
    columns = opened.execute_script(script)
    assert (len(columns) > 3) == bool(opened.find_elements("css selector", "table"))
    numbers = 0
    for down, up, first, second, count, marked in columns:
        assert (first, second, marked) == ("descending", "ascending", 1)
        assert len(down) == len(up) == count
        if None not in down:
            numbers += 1
            values = [float(v) for v in down]
            assert values == sorted(values, reverse=True)
            assert [float(v) for v in up] == sorted(values)
    assert numbers >= 2


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_no_width_makes_the_page_scroll_sideways(opened, width):
    """Wide tables and figures scroll by themselves."""
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    wide = opened.execute_script("return document.documentElement.scrollWidth")
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= width


def test_a_screen_reader_finds_its_way(opened):
    """One heading of the first rank, labelled figures, named buttons, keyboard reaches controls."""
    script = (
        "const all = s => [...document.querySelectorAll(s)];"
        "return [all('h1').length, all('svg:not([aria-label])').length,"
        " all('button').filter(b => !b.textContent.trim()).length,"
        " all('section:not([aria-labelledby])').length, document.documentElement.lang];"
    )
    assert opened.execute_script(script) == [1, 0, 0, 0, "en"]


def test_the_keyboard_reaches_everything_in_order(browser, one):
    """The tabulator goes through the page from top to bottom, and what is reached is marked."""
    page = open_page(browser, one)
    body = page.find_element("tag name", "body")
    mine = """
      const e = document.activeElement, s = getComputedStyle(e);
      return [e.tagName, e.textContent.trim().slice(0, 40), s.outlineStyle,
              e.getBoundingClientRect().top + scrollY];
    """
    seen = []
    for _ in range(200):
        (body if not seen else page.switch_to.active_element).send_keys(TABULATOR)
        found = page.execute_script(mine)
        if seen and found[0] == "BODY":
            break
        seen.append(found)
    assert seen[0][1] == "Skip to the report"
    assert [text for _, text, *_ in seen[1:5]] == ["nats", "bits", "light", "dark"]
    assert all(outline == "solid" for _, _, outline, _ in seen)
    tops = [top for *_, top in seen[1:]]
    assert all(later >= earlier - 40 for earlier, later in pairwise(tops))
    wanted = page.execute_script(
        "return [...document.querySelectorAll('a, button, summary, pre')]"
        ".filter(e => e.offsetParent || e.classList.contains('skip'))"
        ".filter(e => e.tagName == 'SUMMARY' || !e.closest('details:not([open])')).length"
    )
    assert sum(tag in ("A", "BUTTON", "SUMMARY", "PRE") for tag, *_ in seen) == wanted


def test_the_keyboard_works_the_controls(browser, one):
    """Space presses a button; Enter skips to the report."""
    page = open_page(browser, one)
    bits = page.find_element("css selector", "[data-units-choice=bits]")
    bits.send_keys(" ")
    assert page.execute_script("return document.documentElement.dataset.units") == "bits"
    page = open_page(browser, one)
    page.find_element("tag name", "body").send_keys(TABULATOR)
    page.switch_to.active_element.send_keys(ENTER)
    assert page.execute_script("return document.activeElement.id") == "main"


def test_every_figure_gives_its_numbers(browser, one, measured):
    """Each link, read by the browser itself, is the CSV of the figure above it."""
    page = open_page(browser, one)
    script = """
      const links = [...document.querySelectorAll("figure a[download]")];
      return links.map(a => [a.download, decodeURIComponent(a.href.split(",").slice(1).join(","))]);
    """
    m = measured
    expected = {
        "length": plot_length(m.length, m.criteria),
        "spectrum": m.plot(),
        "rank": plot_plateau(m.spectrum, m.dimension),
        "sources": m.explanation.plot(),
        "saturation": m.saturation.plot(),
    }
    found = dict(page.execute_script(script))
    assert found == {f"{name}.csv": csv_of(figure) for name, figure in expected.items()}
    figures = page.execute_script("return document.querySelectorAll('figure').length")
    assert figures == len(expected)


def test_a_figure_is_saved_as_a_file(browser, one, measured, tmp_path):
    """A click on the link writes the file."""
    page = open_page(browser, one)
    page.execute_cdp_cmd(
        "Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    link = page.find_element("css selector", "a[download='sources.csv']")
    page.execute_script("arguments[0].scrollIntoView()", link)
    # A click by the driver would wait for a page that never comes.
    page.execute_script("arguments[0].click()", link)
    target = tmp_path / "sources.csv"
    WebDriverWait(page, 20).until(lambda _: target.exists())
    assert target.read_text(encoding="utf-8") == csv_of(measured.explanation.plot())


def test_it_follows_the_colours_of_the_system(browser, one):
    """Dark where the system is; text has contrast on both; a button overrides it."""
    back = "return getComputedStyle(document.body).backgroundColor"
    shades = []
    for dark in (False, True):
        page = open_page(browser, one, dark=dark)
        shades.append(page.execute_script(back))
        for ratio, where in page.execute_script(CONTRAST):
            assert ratio >= 4.5, where
    assert shades[0] == "rgb(255, 255, 255)"
    assert shades[1] != shades[0]
    page.find_element("css selector", "[data-theme-choice=light]").click()
    assert page.execute_script(back) == shades[0]


def test_it_prints(browser, one):
    """Black on white also from a dark screen; no controls; nothing is cut off."""
    page = open_page(browser, one, dark=True)
    page.find_element("css selector", "[data-theme-choice=dark]").click()
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    shown = """
      return [...document.querySelectorAll(".controls, nav, .csv, .code button")]
        .filter(e => e.offsetParent).length
    """
    assert page.execute_script(shown) == 0
    colours = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    assert page.execute_script(colours) == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    pdf = page.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"]
    assert base64.b64decode(pdf).startswith(b"%PDF")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_figures_are_laid_out_anew_on_a_telephone(browser, one):
    """Of the two drawings of a figure one is shown, and its letters can be read."""
    page = open_page(browser, one)
    script = """
      return [...document.querySelectorAll("figure")].map(f =>
        [...f.querySelectorAll(".drawing")].filter(d => d.offsetParent).map(d => [
          d.className, Math.min(...[...d.querySelectorAll("text")]
            .map(t => t.getBoundingClientRect()).filter(r => r.width > r.height)
            .map(r => r.height))]));
    """
    for width, kind in ((390, "narrow"), (1200, "wide")):
        page.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        for shown in page.execute_script(script):
            ((name, height),) = shown
            assert kind in name
            assert height >= 8.5
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_pieces_in_a_notebook_take_its_colours(browser, measured, compared, tmp_path):
    """On a dark page text is light; nothing is fetched; nothing complains."""
    body = measured._repr_html_() + compared._repr_html_() + measured.saturation._repr_html_()
    path = tmp_path / "notebook.html"
    head = "<meta charset='utf-8'><link rel='icon' href='data:,'>"
    path.write_text(f"{head}<body style='background:#111;color:#eee'>{body}", encoding="utf-8")
    page = open_page(browser, path)
    colour = "return getComputedStyle(document.querySelector('.value')).color"
    assert page.execute_script(colour) == "rgb(238, 238, 238)"
    assert page.get_log("browser") == []
    assert requests(page) == [page.current_url]
