"""Descriptions: what matters first, in plain text, and no longer than MLflow keeps."""

from __future__ import annotations

from pathlib import Path

from harness.tables.table import Difference
from harness.tables.verdict import verdict
from harness.tracking import notes
from harness.tracking.recorded import _LONGEST_TAG


def test_a_comparison_opens_with_its_verdict_in_plain_text_then_where_to_look(given, tmp_path: Path) -> None:
    table = given.finished_folder(tmp_path, [given.result("dense"), given.result("peer")])
    better = Difference(a="peer", b="dense", metric="loss/spliced_bits_per_byte", value=-0.1, low=-0.2, high=-0.1)
    judged = table.model_copy(
        update={
            "headline": ["loss/spliced_bits_per_byte"],
            "differences": [better.model_copy(update={"verdict": "better"})],
        }
    )
    first, _, charts, *rest = notes.of_comparison(judged, {"cost": "#/there"}).splitlines()
    assert "`" in verdict(judged)[0]  # which lists would show as it stands
    assert first == verdict(judged)[0].replace("`", "")
    assert {"peer", "dense"} <= set(first.replace(",", "").split())
    assert charts == "Charts: [cost](#/there)"
    assert any(line.startswith("| `peer` |") for line in rest)


def test_without_a_verdict_the_losses_are_said(given, tmp_path: Path) -> None:
    table = given.finished_folder(tmp_path, [given.result("dense"), given.result("peer")])
    assert notes.of_comparison(table, {}).splitlines()[0] == (
        "No verdict, with one seed. Spliced bits per byte (lower is better): dense 2, peer 2."
    )


def test_a_row_says_its_main_figures_in_its_first_line(given) -> None:
    said = notes.of_row(given.result("dense"), ["loss/bits_per_byte"]).splitlines()
    assert said[0] == (
        "dense, seed 0: spliced bits per byte 2 bits/byte, sparsity l0 100 units/token, bits per byte 1.9 bits/byte"
    )


def test_a_description_ends_at_a_whole_line_where_mlflow_would_cut_it(given, tmp_path: Path) -> None:
    table = given.finished_folder(tmp_path, [given.result(f"dense[d_ff={n}]") for n in range(200)])
    said = notes.of_comparison(table, {})
    assert len(said) <= _LONGEST_TAG
    *lines, _, last = said.splitlines()
    assert last == "More: table.md among the artifacts."
    assert lines[-1].endswith(" |")
