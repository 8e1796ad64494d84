"""Reports opened in a browser: nothing goes wrong, nothing is fetched, every control works."""

from __future__ import annotations

import json
import shutil

import pytest

import lightlike as ll

webdriver = pytest.importorskip("selenium.webdriver")
DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(not (DRIVER and BROWSER), reason="needs Debian's chromium-driver"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
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


@pytest.fixture(params=["measured", "unlabelled", "compared", "followed"])
def opened(request, browser, tmp_path):
    path = ll.report(request.getfixturevalue(request.param), tmp_path / "report.html")
    browser.get_log("performance")
    browser.set_window_size(1200, 900)
    browser.get(path.as_uri())
    return browser


def test_nothing_goes_wrong_and_nothing_is_fetched(opened):
    """No message on the console; the file itself is the only request."""
    assert opened.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events
             if e["method"] == "Network.requestWillBeSent"]  # fmt: skip
    assert [url for url in asked if not url.startswith("data:")] == [opened.current_url]


def test_units_and_colours_change(opened):
    """Buttons say which is chosen; amounts follow."""
    shown = "return [...document.querySelectorAll(arguments[0])].filter(e => e.offsetParent).length"
    for unit, other in (("bits", "nats"), ("nats", "bits")):
        opened.find_element("css selector", f"[data-units-choice={unit}]").click()
        assert opened.execute_script(shown, f"main .{unit}") > 0
        assert opened.execute_script(shown, f"main .{other}") == 0
    back = "return getComputedStyle(document.body).backgroundColor"
    seen = []
    for theme in ("light", "dark"):
        button = opened.find_element("css selector", f"[data-theme-choice={theme}]")
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        seen.append(opened.execute_script(back))
    assert seen[0] != seen[1]


def test_tables_sort_by_any_column(opened):
    """Largest first, then smallest, by the numbers and not by their digits."""
    script = (
        "const t = document.querySelector('table:has(th.n)'), c = t.tHead.rows[0].cells.length - 1;"
        "const b = t.tHead.rows[0].cells[c].querySelector('button');"
        "const get = () => [...t.tBodies[0].rows].map(r => Number(r.cells[c].dataset.sort));"
        "b.click(); const down = get(); b.click(); return [down, get()];"
    )
    down, up = opened.execute_script(script)
    assert down == sorted(down, reverse=True)
    assert up == sorted(up)


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
    body = opened.find_element("tag name", "body")
    body.send_keys("\ue004")  # the tabulator
    assert opened.switch_to.active_element.text == "Skip to the report"
