"""How curves reach MLflow: whole steps, each once, the columns that were chosen, under names it accepts."""

from __future__ import annotations

import itertools
from pathlib import Path

from harness.tracking.curves import CurveTail, flat, metric_key, shortened


def test_a_tail_reads_whole_lines_once_and_never_a_step_twice(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    tail = CurveTail(path, "train", last_step=2)
    assert tail.rows() == []  # not there yet
    path.write_text('{"step": 1}\n{"step": 3}\n{"step": 4')
    assert [r["step"] for r in tail.rows()] == [3]
    with path.open("a") as file:
        file.write('}\n{"step": 5}\n')
    assert [r["step"] for r in tail.rows()] == [4, 5]
    path.write_text('{"step": 1}\n')  # cut back
    assert tail.rows() == []
    path.write_text('{"step": 1}\n{"step": 5}\n{"step": 6}\n')
    assert [r["step"] for r in tail.rows()] == [6]


def test_a_curve_that_is_moved_is_found_where_it_went(tmp_path: Path) -> None:
    tail = CurveTail(lambda: next(tmp_path.glob("*/curve.jsonl"), None), "train")
    assert tail.rows() == []
    seen = []
    for folder, steps in (("a work folder", (1, 2)), ("a stage with a longer name", (1, 2, 3))):
        for old in tmp_path.glob("*/curve.jsonl"):
            old.unlink()
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "curve.jsonl").write_text(
            "".join(f'{{"step": {step}, "in": "{folder}"}}\n' for step in steps)
        )
        seen.append([row["step"] for row in tail.rows()])
    assert seen == [[1, 2], [3]]


def test_batches_never_cut_a_step(given, tmp_path: Path) -> None:
    tail = CurveTail(given.curve(tmp_path / "c.jsonl", range(1, 902)), "train")
    batches = list(tail.batches())
    assert all(len(b) <= 1000 for b in batches)
    assert all({m.step for m in a}.isdisjoint({m.step for m in b}) for a, b in itertools.pairwise(batches))
    assert sum(len(b) for b in batches) == 901 * 5


def test_only_chosen_columns_are_sent_with_six_digits(given, tmp_path: Path) -> None:
    tail = CurveTail(given.curve(tmp_path / "c.jsonl", range(3, 4)), "train", ("loss", "absent"))
    ((metric,),) = list(tail.batches())
    assert (metric.key, metric.value, metric.step) == ("train/loss", 0.333333, 3)


def test_keys_and_params_are_what_mlflow_accepts() -> None:
    assert metric_key("loss/dense+topk[k=16]") == "loss/dense.topk.k.16."
    assert flat({"a": {"b": [1, 2]}, "c+": None, "e": {}}) == {"a.b": "[1, 2]", "c.": "null", "e": "{}"}
    assert len(shortened("x" * 300)) <= 250
    assert shortened("x" * 300) != shortened("x" * 301)
