"""What a person sees who opens the addresses that `harness ui` prints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from harness.tables.build import SeedResult
from harness.tables.measurement import Measurement
from harness.tables.table import RowProvenance
from harness.tracking import views
from harness.tracking.server import serving

pytestmark = [pytest.mark.slow, pytest.mark.browser]
FLAGS = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update "
    "disable-sync window-size=1600,1400"
)
FIGURES = {
    "loss/spliced_bits_per_byte": 2.0, "loss/bits_per_byte": 1.9, "sparsity/l0": 16.0, "usage/dead": 0.2,
    "usage/unevenness": 0.5, "cost/training_flops": 1e9, "cost/parameters": 1e6, "joint/pairs_code": 0.1,
}  # fmt: skip
COLOURS = {"dense": "#0072B2", "dense+topk": "#D55E00"}


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    selenium = pytest.importorskip("selenium.webdriver")
    options = selenium.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS.split(), f"user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    opened = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    yield opened
    opened.quit()


def send(given, tmp_path: Path) -> str:
    """A comparison of which every view has something to show; the experiment's id."""
    results = []
    with given.tracker().invocation(given.corpus, "cfg") as invocation:
        for system in COLOURS:
            kind, site = ("dictionary", "mlp.0") if "+" in system else ("subject", "")
            for seed in (0, 1):
                columns = {"dead_share": 0.1, "explained_variance": 0.5} if site else {}
                curve = given.curve(tmp_path / system / str(seed) / "curve.jsonl", range(1, 9), **columns)
                figures = [Measurement(name, value + seed / 9, "", "lower", 1) for name, value in FIGURES.items()]
                result = SeedResult(system, kind, seed, figures, RowProvenance())
                with invocation.row(system, seed, kind, [site]) as run:
                    run.curve(curve, site)
                    run.finish(result)
                results.append(result)
        invocation.finish(given.finished_folder(tmp_path / "out", results), tmp_path / "out", COLOURS)
    return given.runs()[0].info.experiment_id


def test_every_view_opens_as_charts_without_an_error_and_asks_nobody_else(
    given, tmp_path: Path, free_port: int, browser: Any
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    experiment = send(given, tmp_path)
    wait = WebDriverWait(browser, 120)
    with serving(given.store, free_port) as running:
        for name in views.VIEWS:
            browser.get("about:blank")
            browser.get(views.link(running.base, experiment, name))
            charts = len([c for c in views_state(given, experiment, name)["compareRunCharts"] if not c["deleted"]])
            wait.until(lambda page: len(page.find_elements(By.CSS_SELECTOR, ".js-plotly-plot")) > 0)
            wait.until(lambda page, said=f"{name} ({charts})": said in text_of(page))
            text = text_of(browser)
            assert "4 matching runs" in text, name  # no parent among them
            assert not [bad for bad in ("Error loading", "Something went wrong", "No charts") if bad in text], name
            sections = browser.find_elements(
                By.CSS_SELECTOR, "[data-testid='experiment-view-compare-runs-section-header']"
            )
            assert len(sections) <= 1, name  # the interface adds none of its own
        page = browser.page_source.lower()
        assert all(rgb(colour) in page or colour.lower() in page for colour in COLOURS.values())
        browser.get("about:blank")
        browser.get(views.link(running.base, experiment, views.INVOCATIONS))
        wait.until(lambda page: "headline/spliced_bits_per_byte/dense" in page.page_source)
        asked = [urlsplit(url) for url in requested(browser)]
    hosts = {url.netloc for url in asked if url.scheme in ("http", "https", "ws", "wss")}
    assert hosts == {f"127.0.0.1:{free_port}"}


def text_of(page: Any) -> str:
    return " ".join(page.find_element("tag name", "body").text.split())


def views_state(given, experiment: str, name: str) -> dict[str, Any]:
    tags = given.client().get_experiment(experiment).tags
    return json.loads(json.loads(tags[f"{views.PREFIX}{views.view_id(name)}"])["state"])


def rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"


def requested(browser: Any) -> list[str]:
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
