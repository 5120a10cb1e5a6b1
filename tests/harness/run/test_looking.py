"""`harness steer` and `harness trace` on a row that was run, and the mistakes one makes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from .conftest import Ran

pytestmark = pytest.mark.slow

InProcess = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the row was run: what is stored was computed with so many."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("system", ["dense", "dense+topk", "peer"])
def test_a_prompt_is_drawn_for_either_road(system: str, ran: Ran, in_process: InProcess, tmp_path: Path) -> None:
    out = tmp_path / "trace.html"
    code, said = in_process(
        "trace", system, "--prompt", "def f(x):", "--experiment", "smoke", "--out", str(out), store=ran.store
    )
    assert code == 0, said
    assert re.search(r"\d+ nodes; replacement \d+%, completeness \d+%", said)
    page = out.read_text()
    assert "http" not in page.replace("http://www.w3.org", "")  # nothing is fetched
    assert page.count('class="node"') > 2
    assert page.count('class="edge"') > 2


def test_a_unit_is_held_and_the_text_stands_beside_the_models_own(ran: Ran, in_process: InProcess) -> None:
    asked = ("steer", "dense", "1:3", "--experiment", "smoke", "--prompt", "def", "--tokens", "5")
    code, said = in_process(*asked, store=ran.store)
    assert code == 0, said
    assert "dense, unit 3 at mlp_out.1: fires on " in said
    assert "by itself: def" in said

    def lines(*more: str) -> list[str]:
        found = in_process(*asked, *more, store=ran.store)[1].splitlines()
        return [line for line in found if line.startswith(("by itself", "held"))]

    assert len(lines()) == 2
    assert lines("--draw", "7") == lines("--draw", "7")
    assert "held at 1e+04" in in_process(*asked, "--value", "1e4", store=ran.store)[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("steer", "dens", "0:1"), "system 'dens'"),
        (("steer", "dense", "7:1"), "unit '7:1'"),
        (("steer", "dense", "x"), "layer and number, such as 0:17"),
        (("steer", "dense", "0:999"), "has units 0 to 127"),
        (("steer", "dense", "0:1", "--tokens", "500"), "64 fit"),
        (("steer", "dense", "0:1", "--seed", "5"), "seed 5: smoke has seeds 0"),
        (("trace", "dense", "--prompt", ""), "the prompt is empty"),
        (("trace", "dense", "--prompt", "word " * 90), "64 fit"),
    ],
)
def test_a_mistake_is_one_line_and_exit_two(
    arguments: tuple[str, ...], says: str, ran: Ran, in_process: InProcess
) -> None:
    code, said = in_process(*arguments, "--experiment", "smoke", store=ran.store)
    assert code == 2
    assert says in said
    assert "Traceback" not in said


def test_a_row_that_was_not_run_is_named_with_what_makes_it(in_process: InProcess, tmp_path: Path) -> None:
    code, said = in_process("steer", "dense", "0:1", "--experiment", "smoke", store=tmp_path)
    assert code == 2
    assert "is not stored (cpu, 1 threads); `harness run smoke` makes it" in said
