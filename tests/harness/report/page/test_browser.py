"""The page in a real browser: every control, no error, no request, text as text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .worlds import results

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium with its chromedriver on this machine"),
]
# Without these, Chromium itself asks hosts of its maker at every start.
_QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--window-size=1300,1000",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--force-prefers-reduced-motion",
)  # fmt: skip
N_UNITS = 4096


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return results(tmp_path_factory.mktemp("results"), N_UNITS)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in (*_QUIET, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    browser.implicitly_wait(10)
    yield browser
    browser.quit()


@pytest.fixture
def opened(driver: Any, page: Path) -> Iterator[Any]:
    """The page just opened; in the end nothing may have gone wrong in it, and nothing been asked for."""
    driver.get("about:blank")
    driver.get_log("performance")
    driver.get(page.as_uri())
    find(driver, "#look-live svg.marks")
    yield driver
    assert [entry["message"] for entry in driver.get_log("browser")] == []
    asked = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in asked if one["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith(("file:", "data:", "blob:"))] == []
    assert driver.execute_script("return window.hacked") is None


def find(driver: Any, css: str) -> Any:
    return driver.find_element("css selector", css)


def all_of(driver: Any, css: str) -> list[Any]:
    return driver.find_elements("css selector", css)


def choose(driver: Any, select: Any, value: str) -> None:
    from selenium.webdriver.support.select import Select

    Select(select).select_by_value(value)


def until(driver: Any, script: str) -> Any:
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(driver, 20).until(lambda d: d.execute_script(f"return {script}"))


def test_the_first_figure_switches_and_a_click_pins_a_row_everywhere(opened: Any) -> None:
    across, up = all_of(opened, "#look-live select")
    assert not find(opened, "#look-picture").is_displayed()
    choose(opened, across, "cost/active_parameters")
    assert until(opened, "document.querySelector('#look-live svg').textContent.includes('active parameters')")
    choose(opened, up, "absolute")
    assert until(opened, "document.querySelector('#look-live svg').textContent.includes('running through its units')")
    find(opened, "#look-live .legend button:nth-child(3)").click()
    pinned = until(opened, "[...document.querySelectorAll('#board tr.pinned')].map((row) => row.dataset.system)")
    assert pinned == ["peer"]
    assert until(opened, "document.querySelectorAll('#explore-live [aria-pressed=true]').length === 1")


def test_any_figure_stands_against_any_other(opened: Any) -> None:
    across, up = all_of(opened, "#explore-live select")
    log_x, log_y, paired = all_of(opened, "#explore-live input")
    choose(opened, across, "usage/rare")
    choose(opened, up, "loss/spliced_bits_per_byte")
    for box in (log_x, log_y, paired):
        box.click()
    assert until(opened, "document.querySelector('#explore-live svg.marks').textContent.includes('minus dense')")


def test_the_scoreboard_sorts_inside_groups_and_takes_another_baseline(opened: Any) -> None:
    systems = "[...document.querySelectorAll('#board tr[data-system]')].map((row) => row.dataset.system)"
    assert until(opened, systems) == ["dense", "dense+topk", "peer"]
    heading = find(opened, "#board thead th:nth-child(2) button")
    heading.click()
    assert find(opened, "#board thead th:nth-child(2)").get_attribute("aria-sort") == "ascending"
    choose(opened, find(opened, "#baseline"), "peer")
    cell = find(opened, "#board tr[data-system=dense] td")
    assert cell.text.startswith("+0.1")
    assert "minus peer" in heading.text
    choose(opened, find(opened, "#baseline"), "")
    assert "(itself)" in find(opened, "#board tr[data-system=dense] td").text
    assert "better" in find(opened, "#board tr[data-system=peer] td").text


def test_units_are_searched_sorted_held_beside_each_other_and_addressed(opened: Any) -> None:
    search, orders = find(opened, "#units-live input"), all_of(opened, "#units-live select")[2]
    search.send_keys("fires on dog")
    assert until(opened, "document.querySelectorAll('#units-live .list button').length === 1")
    find(opened, "#units-live .list button").click()
    card = find(opened, "#units-live .card")
    assert "layer 0, unit 1" in card.text
    assert "rule balanced accuracy 0.95; random direction 0.7" in card.text
    assert "Suppresses ⏎" in card.text
    assert "says 0.5 bit beyond its parts (floor 0.125); edited at:" in card.text
    assert "there the model says: ⏎75%" in card.text
    assert opened.execute_script("return location.hash") == "#unit/peer/0/1"
    find(opened, "#units-live .card button").click()
    search.clear()
    search.send_keys(" ")
    choose(opened, orders, "often")
    find(opened, "#units-live .list button").click()
    assert len(all_of(opened, "#units-live .card")) == 2
    assert opened.execute_script("return location.hash").endswith("/vs/peer/0/1")


def test_a_card_says_what_its_system_shows_and_that_the_unit_was_picked(opened: Any) -> None:
    find(opened, "#units-live .list button").click()
    said = find(opened, "#units-live .card .own").text
    assert "an extreme says what there is, not how much of it" in said
    assert "No figure of peer is set against a control here." in said


def test_a_pair_of_the_table_opens_at_the_pair_and_its_second_unit_at_its_own_card(opened: Any) -> None:
    first, second = all_of(opened, "#units table.plain td a")[:2]
    first.click()
    assert until(opened, "document.activeElement.dataset.pair === '0/1'")
    top = opened.execute_script("return document.activeElement.getBoundingClientRect().top")
    assert 0 <= top < opened.execute_script("return innerHeight")
    opened.execute_script("arguments[0].click()", second)  # the page's head may lie over it now
    assert until(opened, "document.querySelector('#units-live .card h3').textContent === 'peer, layer 0, unit 1'")


def test_the_scoreboard_is_wider_than_the_text_and_keeps_its_group_titles_in_view(driver: Any, opened: Any) -> None:
    size = driver.get_window_size()
    try:
        driver.set_window_size(1800, 1000)
        driver.execute_script("document.querySelector('#board').style.width = '1700px'")
        inside, body = (
            driver.execute_script(f"return document.querySelector('{css}').clientWidth") for css in (".beyond", "body")
        )
        assert inside >= 1690 > body
        driver.set_window_size(900, 1000)
        driver.execute_script("document.querySelector('.beyond').scrollLeft = 600")
        edge, title = (
            driver.execute_script(f"return document.querySelector('{css}').getBoundingClientRect().left")
            for css in (".beyond", "#board .group span")
        )
        assert edge <= title < edge + 40
    finally:
        driver.set_window_size(size["width"], size["height"])


def test_an_address_opens_its_unit_and_one_that_is_not_there_says_so(driver: Any, page: Path, opened: Any) -> None:
    driver.execute_script("location.hash = '#unit/peer/1/7'")
    assert until(driver, "document.querySelector('#units-live .card h3').textContent === 'peer, layer 1, unit 7'")
    driver.execute_script("location.hash = '#unit/peer/1/999999'")
    assert until(
        driver, "document.querySelector('#units-live .cards').textContent.includes('No report of peer/1/999999')"
    )


def test_hostile_text_shows_as_text(opened: Any) -> None:
    opened.execute_script("location.hash = '#unit/peer/0/0'")
    assert until(
        opened, "document.querySelector('#units-live .card').textContent.includes('</script><script>window.hacked')"
    )


def test_switching_units_among_thousands_makes_one_card_and_leaves_the_list(opened: Any) -> None:
    """What keeps it quick whatever the machine: nothing that grows with the number of units is made again."""
    assert len(all_of(opened, "#units-live .list button")) == 201
    made = opened.execute_script(
        "let count = 0; const seen = new MutationObserver(() => {});"
        "seen.observe(document.getElementById('units-live'), {childList: true, subtree: true});"
        "document.querySelectorAll('#units-live .list button')[100].click();"
        "seen.takeRecords().forEach((one) => count += one.addedNodes.length); return count"
    )
    assert made == 1
    clicked = all_of(opened, "#units-live .list button")[100].text.split("\n")[0]
    assert find(opened, "#units-live .card h3").text == f"peer, {clicked}"


def test_everything_is_reached_by_keyboard(opened: Any) -> None:
    reached = opened.execute_script(
        "return [...document.querySelectorAll('main button, main select, main input, main summary')]"
        ".filter((one) => one.tabIndex < 0).length"
    )
    assert reached == 0
    assert all_of(opened, ".context [tabindex='0']")


def test_nothing_is_wider_than_a_phone(opened: Any) -> None:
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        assert until(opened, "document.documentElement.scrollWidth <= 390")
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_scripts_the_tables_and_pictures_stand_there(driver: Any, page: Path) -> None:
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        driver.get(page.as_uri())
        assert find(driver, "#look-picture svg").is_displayed()
        assert "better" in find(driver, "#board tr[data-system=peer]").text
        assert find(driver, "#explore .no-script").is_displayed()
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
