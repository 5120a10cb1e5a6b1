from __future__ import annotations

import json

import pytest
import torch

from kernels import bench
from kernels.bench import experts, measure, report


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    bench.run(out, rounds=1, tiny=True)
    return out


def test_tables_hold_every_section_and_say_what_ran(folder):
    table = json.loads((folder / "table.json").read_text())
    assert {"Rank-1 experts", "Dictionary step", "Selection"} <= table["sections"].keys()
    assert table["machine"]["copy"] > 0
    row = table["sections"]["Rank-1 experts"][0]
    assert row["error"] < 1e-5
    assert row["ratios"].keys() == {"reference", "embedding_bag"}
    assert any("rank1_experts" in remark for remark in table["remarks"])
    markdown = (folder / "table.md").read_text()
    assert row["name"] in markdown


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a table without a GPU says")
def test_table_without_a_gpu_says_that_its_speed_is_not_known(folder):
    assert "No GPU column" in (folder / "table.md").read_text()


def test_the_dictionary_step_has_the_loss_curve_of_the_dense_one(folder):
    table = json.loads((folder / "table.json").read_text())
    note = table["sections"]["Dictionary step"][0]["note"]
    difference = float(note.split("plain torch differs by at most ")[1].split()[0].rstrip(","))
    assert difference < 1e-4


def test_a_missed_aim_is_called_missed():
    ceilings = measure.Ceilings("machine", 2, 10.0, 100.0)
    slow = measure.TimedRow("op", 10.0, (9.0, 11.0), {"rival": 20.0}, {"rival": 3.0})
    fast = measure.TimedRow("op", 10.0, (9.0, 11.0), {"rival": 40.0}, {"rival": 3.0})
    assert "2.00× (aim 3×: not met)" in report.markdown(ceilings, {"s": [slow]}, [])
    assert "4.00× (aim 3×: met)" in report.markdown(ceilings, {"s": [fast]}, [])


def test_the_benchmarked_layer_has_as_many_active_experts_as_it_says():
    size = experts.ExpertSizes(3, 8, 16, 2, 4)
    assert size.slots == 8
    assert experts.Layer(size)(torch.randn(3, 8)).shape == (3, 8)
