"""`harness check NAME`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from models.dense import Dense

Run = Callable[..., tuple[int, str]]


def test_an_architecture_that_is_what_it_says_is_told_so(in_process: Run, tmp_path: Path) -> None:
    code, said = in_process("check", "bilinear", store=tmp_path)
    assert code == 0
    assert "bilinear is what it says" in said


def test_a_wrong_one_gets_a_line_for_every_layer_and_rule(
    in_process: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dense, "flops_per_token", lambda _self: 0)
    code, said = in_process("check", "dense", store=tmp_path)
    assert code == 1
    lines = [line for line in said.splitlines() if line.startswith("dense: ")]
    assert [line.split(": ")[1] for line in lines] == [f"in float64, layer {n} (Dense)" for n in (0, 1)]
    assert "flops_per_token is what the matrix products take, within 2%; seen: 0 said, 6,144 counted" in lines[0]


def test_an_unknown_name_gets_the_nearest(in_process: Run, tmp_path: Path) -> None:
    code, said = in_process("check", "pool", store=tmp_path)
    assert code == 2
    assert "no architecture 'pool'; did you mean pools?" in said
