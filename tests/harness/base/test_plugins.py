"""Packages with entry points, installed by putting their folder and metadata on the path."""

import importlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import metrics
from harness.base import plugins
from harness.base.errors import BadInput

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """install(name, code, group=..., entry=...): a package `name` of one file with one entry point."""

    def put(name: str, code: str, *, group: str, entry: str) -> None:
        (tmp_path / f"{name}.py").write_text(code)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")
        importlib.invalidate_caches()

    def forget() -> None:
        plugins.load_all.cache_clear()
        plugins._say.cache_clear()

    monkeypatch.syspath_prepend(str(tmp_path))
    forget()
    yield put
    forget()


METRIC = """
from pydantic import BaseModel
VERSION = 1
class Options(BaseModel):
    pass
def measure(evaluation, options):
    return []
"""


@pytest.mark.parametrize("value", ["a_metric", "a_metric:measure"])
def test_an_entry_point_names_a_module_with_or_without_what_is_in_it(install: Install, value: str) -> None:
    install("a_metric", METRIC, group="harness.metrics", entry=f"mine = {value}")
    assert metrics.names()["mine"] == "a_metric"
    assert metrics.module_of("mine").VERSION == 1


def test_a_metric_under_a_name_of_ours_is_refused_and_said(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install("b_metric", METRIC, group="harness.metrics", entry="loss = b_metric")
    with caplog.at_level(logging.WARNING):
        assert metrics.names()["loss"] == "harness.metrics.loss"
    (said,) = caplog.messages
    assert "'loss' is taken" in said
    assert "b_metric" in said


def test_a_metric_that_lacks_a_part_is_named_with_it(install: Install) -> None:
    install("c_metric", "VERSION = 1\n", group="harness.metrics", entry="half = c_metric")
    with pytest.raises(BadInput, match="metric 'half' cannot be used: c_metric has no Options, no measure"):
        metrics.module_of("half")


def test_a_metric_that_cannot_be_imported_is_named_in_one_line(install: Install) -> None:
    install("d_metric", "import no_such_package\n", group="harness.metrics", entry="broken = d_metric")
    with pytest.raises(BadInput, match=r"metric .broken. cannot be used: .*no_such_package") as caught:
        metrics.module_of("broken")
    assert "\n" not in str(caught.value)


def test_a_broken_package_is_skipped_and_said_once_and_the_others_are_loaded(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("e_system", "raise RuntimeError('half\\ninstalled')\n", group="harness.systems", entry="toy = e_system:Toy")
    with caplog.at_level(logging.WARNING):
        (line,) = plugins.load_all("harness.systems")
        assert plugins.load_all("harness.systems") == (line,)
    assert line == "harness.systems: 'toy' of e_system cannot be used: RuntimeError: half installed"
    assert caplog.messages == [line]


def test_doctor_names_a_broken_package(install: Install) -> None:
    from harness.run.doctor import _plugins

    install("f_system", "import no_such_package\n", group="harness.systems", entry="toy = f_system")
    (check,) = _plugins()
    assert not check.ok
    assert "f_system" in check.text
