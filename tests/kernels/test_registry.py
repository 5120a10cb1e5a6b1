"""Names that files register: our own folders are walked, other packages put themselves on the path by entry point."""

import importlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kernels import registry
from kernels.registry import Registry, nearest

Install = Callable[..., None]


@pytest.fixture
def colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[int]:
    """A project with a folder `paints` of files, and the registry that walks it."""
    (tmp_path / "paints").mkdir()
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.registered.cache_clear()
    registry.plugged.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "paints" or name.endswith("_paint")]:
        del sys.modules[name]
    made: Registry[int] = Registry("colour", "paints", "test.colours")
    monkeypatch.setattr(registry, "COLOURS", made, raising=False)
    return made


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, str], None]:
    def write(name: str, code: str) -> None:
        (tmp_path / f"{name}.py").write_text(
            "from kernels.registry import COLOURS\nregister = COLOURS.register\n" + code
        )
        importlib.invalidate_caches()
        registry.registered.cache_clear()

    return write


@pytest.fixture
def install(tmp_path: Path, put: Callable[[str, str], None]) -> Install:
    """install(name, code, entry): a package of one file with one entry point."""

    def package(name: str, code: str, entry: str) -> None:
        put(name, code)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[test.colours]\n{entry}\n")
        registry.plugged.cache_clear()

    return package


def test_a_new_file_is_known_by_its_names_before_it_is_imported(colours: Registry[int], put) -> None:
    put("paints/warm", 'raise_if_imported = 1 / 0\nregister("red", 1)\nregister("orange", 2)\n')
    assert list(colours) == ["red", "orange"]
    assert colours.modules() == {"red": "paints.warm", "orange": "paints.warm"}
    assert "red" in colours
    assert "blue" not in colours
    assert len(colours) == 2


def test_an_entry_costs_the_import_of_its_file_and_of_no_other(colours: Registry[int], put) -> None:
    put("paints/cool", 'register("blue", 3)\n')
    put("paints/broken", '1 / 0\nregister("grey", 4)\n')
    assert colours["blue"] == 3
    with pytest.raises(ValueError, match=r"colour 'grey' cannot be used: importing paints\.broken gives ZeroDiv"):
        colours.named("grey")
    with pytest.raises(KeyError):
        colours["grey"]


def test_calls_in_functions_and_names_that_are_computed_are_no_names(colours: Registry[int], put) -> None:
    put("paints/odd", 'def later():\n    register("late", 1)\nfor name in ("a", "b"):\n    register(name, 2)\n')
    assert list(colours) == []


def test_a_name_that_two_files_register_is_an_error_that_names_both(colours: Registry[int], put) -> None:
    put("paints/one", 'register("red", 1)\n')
    put("paints/two", 'register("red", 2)\n')
    with pytest.raises(ValueError, match=r"'red' is registered by paints\.one and by paints\.two"):
        list(colours)


def test_a_name_cannot_be_registered_twice(colours: Registry[int]) -> None:
    colours.register("red", 1)
    with pytest.raises(ValueError, match="colour 'red' is already registered"):
        colours.register("red", 2)


@pytest.mark.parametrize("value", ["a_paint", "a_paint:anything"])
def test_an_entry_point_names_a_module_with_or_without_what_is_in_it(
    colours: Registry[int], install: Install, value: str
) -> None:
    install("a_paint", 'register("mine", 7)\n', f"mine = {value}")
    assert colours.modules() == {"mine": "a_paint"}
    if value == "a_paint":
        assert colours["mine"] == 7


def test_a_name_of_ours_is_not_given_away_and_that_is_said(
    colours: Registry[int], put, install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    put("paints/warm", 'register("red", 1)\n')
    install("b_paint", 'register("red", 2)\n', "red = b_paint")
    with caplog.at_level(logging.WARNING):
        assert colours.modules() == {"red": "paints.warm"}
        assert colours.modules() == {"red": "paints.warm"}
    (said,) = caplog.messages
    assert "'red' is taken" in said
    assert "b_paint" in said


def test_a_package_that_cannot_be_imported_or_registers_another_name_costs_only_itself(
    colours: Registry[int], put, install: Install
) -> None:
    put("paints/warm", 'register("red", 1)\n')
    install("c_paint", "raise RuntimeError('half\\ninstalled')\n", "mauve = c_paint")
    install("d_paint", 'register("teal", 5)\n', "cyan = d_paint")
    assert colours["red"] == 1
    other, broken = colours.broken()
    assert broken.startswith("test.colours: colour 'mauve' cannot be used: importing c_paint gives RuntimeErr")
    assert "c_paint)" in broken
    assert "'cyan' cannot be used: d_paint registers no such name" in other
    assert "\n" not in broken


def test_an_unknown_name_is_answered_with_the_nearest_and_all_there_are(colours: Registry[int], put) -> None:
    put("paints/warm", 'register("red", 1)\nregister("orange", 2)\n')
    with pytest.raises(ValueError, match=r"^no colour 'ornage'; did you mean orange\? \(allowed: orange, red\)$"):
        colours.named("ornage")
    assert nearest("zzz", ["b", "a"]) == "(allowed: a, b)"
