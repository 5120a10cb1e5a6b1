import csv
import dataclasses
import io
import json
import os

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from harness.base.errors import BadInput, HarnessError
from harness.base.files import ROOT, write_atomically
from harness.tables.build import SeedResult, build
from harness.tables.cells import cell
from harness.tables.folder import csv_text, read, write
from harness.tables.markdown import details, markdown
from harness.tables.measurement import Measurement, not_applicable
from harness.tables.table import SCHEMA_PATH, Hardware, Provenance, RowProvenance, Table, schema_text
from harness.tables.terminal import render


def provenance(**changes):
    given = {
        "commit": "abc",
        "dirty": False,
        "config_hash": "c0ffee",
        "corpus_hash": "beef",
        "packages": {"torch": "2.13.0"},
        "hardware": Hardware(cpu="x", cores=2, memory_gib=24),
        "threads": 2,
        "python": "3.11.7",
        "os": "Linux",
        "dtype": "float32",
        "device": "cpu",
        "created": "2026-11-21T00:00:00Z",
    }
    return Provenance(**{**given, **changes})


def result(system, seed, bits, kind="subject", tokens_per_second=1000.0, **more):
    noise = np.random.default_rng(0).normal(0, 0.01, 1000)
    measurements = [
        Measurement("loss/bits_per_byte", bits, "bits/byte", "lower", 1, bits + noise, "documents"),
        Measurement("cost/parameters", 1_234_567.0, "parameters", "lower", 1),
        Measurement("cost/tokens_per_second", tokens_per_second, "tokens/s", "higher", 1, timing=True),
    ]
    return SeedResult(
        system, kind, seed, measurements, RowProvenance(kernels={"topk": "cpu"}, stages={"train": "aa"}), **more
    )


@pytest.fixture
def table():
    results = [
        result("bigram", 0, 2.5, kind="reference", not_applicable={"sparsity/l0": "no units"}),
        *(result("dense", s, 1.9 + s / 100) for s in range(3)),
        *(result("dense+topk[k=16]", s, 2.0 + s / 100, kind="dictionary", notes=["not converged"]) for s in range(3)),
    ]
    l0 = Measurement("sparsity/l0", 16.0, "units", "none", 1)
    for r in results[1:]:
        r.measurements.append(l0)
    return build("quickstart", results, provenance(), "dense", ["loss/bits_per_byte"])


def test_figures_are_means_over_seeds_with_per_seed_values(table):
    dense = table.rows[1].metrics["loss/bits_per_byte"]
    assert dense.value == pytest.approx(1.91)
    assert dense.seeds == [1.9, 1.91, 1.92]
    assert dense.low < 1.9 < 1.92 < dense.high
    assert table.rows[1].provenance.stages == {"train/0": "aa", "train/1": "aa", "train/2": "aa"}


def test_differences_are_paired_and_leave_out_timing(table):
    difference = next(d for d in table.differences if d.a.startswith("dense+") and d.metric == "loss/bits_per_byte")
    assert difference.value == pytest.approx(0.1)
    assert difference.high - difference.low < 1e-12  # noise and seed effects are the same on both sides
    assert not any(d.metric == "cost/tokens_per_second" for d in table.differences)


def test_only_timing_differs_between_two_equal_runs():
    def run(tokens_per_second, created):
        results = [result("dense", 0, 1.9, tokens_per_second=tokens_per_second)]
        return build("x", results, provenance(created=created), None)

    a, b = run(1000.0, "now"), run(900.0, "later")
    assert a != b
    assert a.without_timing().model_dump_json() == b.without_timing().model_dump_json()
    assert "cost/parameters" in a.without_timing().rows[0].metrics
    assert "cost/tokens_per_second" in a.rows[0].metrics  # the copy did not change the original


def test_schema_file_is_current_and_accepts_what_is_written(table, tmp_path):
    assert SCHEMA_PATH.read_text() == schema_text(), "run: python -m harness.tables.table"
    write(table, tmp_path)
    jsonschema.validate(json.loads((tmp_path / "table.json").read_text()), json.loads(SCHEMA_PATH.read_text()))


def test_table_survives_the_disk_to_the_last_digit(table, tmp_path):
    write(table, tmp_path / "new" / "folder")
    assert read(tmp_path / "new" / "folder") == table
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == [
        "details.md", "table.csv", "table.json", "table.md",
    ]  # fmt: skip


def test_value_that_is_not_finite_is_shown_with_its_seed():
    built = build("x", [result("dense", 0, 1.9), result("dense", 1, float("nan"))], provenance(), None)
    assert "loss/bits_per_byte" not in built.rows[0].metrics
    assert built.rows[0].not_applicable["loss/bits_per_byte"] == "seed 1 gave nan"


def test_a_figure_that_one_seed_cannot_have_is_missing_and_no_error() -> None:
    missing = not_applicable(["loss/bits_per_byte"], 1, "too few")[0]  # in no unit
    other = dataclasses.replace(result("dense", 1, 1.9), measurements=[missing])
    built = build("x", [result("dense", 0, 1.9), other], provenance(), None)
    assert built.rows[0].not_applicable["loss/bits_per_byte"] == "too few"


def test_seed_without_a_figure_is_null():
    short = result("dense", 1, 1.8)
    short.measurements.pop()
    built = build("x", [result("dense", 0, 1.9), short], provenance(), None)
    assert built.rows[0].metrics["cost/tokens_per_second"].seeds == [1000.0, None]


def test_contradicting_results_are_refused():
    with pytest.raises(ValueError, match="a seed came twice"):
        build("x", [result("dense", 0, 1.9), result("dense", 0, 1.9)], provenance(), None)
    with pytest.raises(ValueError, match="baseline 'peer'"):
        build("x", [result("dense", 0, 1.9)], provenance(), "peer")
    double = result("dense", 0, 1.9)
    double.measurements.append(double.measurements[0])
    with pytest.raises(ValueError, match="measured twice"):
        build("x", [double], provenance(), None)


def test_unequal_seed_lists_are_compared_on_common_seeds():
    results = [result("dense", s, 1.9) for s in range(3)] + [result("peer", s, 1.7) for s in range(1, 3)]
    difference = build("x", results, provenance(), "dense").differences[0]
    assert difference.value == pytest.approx(-0.2)


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (1.86349, 1.8421, 1.8844, "1.863 [1.842, 1.884]"),
        (5432.1, 5222.0, 5642.0, "5,432 [5,222, 5,642]"),
        (0.012345, None, None, "0.01235"),
        (1234567.0, None, None, "1,234,567"),
        (1.5e15, None, None, "1.500e15"),
        (3e-7, None, None, "3.000e-7"),
        (0.0, 0.0, 0.1, "0 [0, 0.100]"),
        (2.0, 2.0, 2.0, "2"),
        (-0.0453, -0.06, -0.03, "-0.045 [-0.060, -0.030]"),
        (16.0, 15.2, 16.9, "16.00 [15.20, 16.90]"),
        (0.1, 0.1, 0.1 + 1e-16, "0.1"),
    ],
)
def test_digits_follow_the_interval(value, low, high, text):
    assert cell(value, low, high) == text


def test_markdown_says_units_direction_reason_and_verdict(table):
    text = markdown(table)
    assert "bits per byte (bits/byte) ↓" in text
    assert "- n/a (l0) for bigram: no units" in details(table)
    assert "- Bits per byte (lower is better), against `dense`: worse: `dense+topk[k=16]` +0.1, `bigram` +0.59" in text
    assert "| `dense+topk[k=16]` | +0.1 worse |" in details(table)
    assert "not converged" in text
    assert text.index("## measured time") > text.index("## sparsity")
    assert "- kernels of `bigram`, `dense`, `dense+topk[k=16]`: topk: cpu" in text
    for line in text.splitlines():  # every line of a table has as many cells as its heading
        assert not line.startswith("|") or line.endswith("|")


def test_markdown_says_how_to_make_the_table_again(table, tmp_path):
    inside = markdown(table, ROOT / "results" / "mine")
    assert "- again: `OMP_NUM_THREADS=2 harness run results/mine/experiment.yaml --device cpu`" in inside
    assert "`harness verify results/mine`" in inside
    outside = markdown(table, tmp_path)
    assert "- again, in this folder: `OMP_NUM_THREADS=2 harness run experiment.yaml --device cpu`" in outside
    assert str(tmp_path) not in outside  # no path of a machine stands in a table
    on_gpu = table.model_copy(update={"provenance": provenance(device="cuda", dtype="bfloat16")})
    assert "harness run experiment.yaml --device cuda --dtype bfloat16`" in markdown(on_gpu)


def test_rows_with_one_seed_get_no_verdict_and_that_is_said(table):
    rows = [result("dense", 0, 1.9), result("peer", 0, 1.7)]
    other = 1.7 + np.random.default_rng(1).normal(0, 0.01, 1000)
    rows[1].measurements[0] = Measurement("loss/bits_per_byte", 1.7, "bits/byte", "lower", 1, other, "documents")
    one = build("x", rows, provenance(), "dense")
    for table_, says in ((one, True), (table, False)):  # the n-gram row there has one seed and is not trained
        out = io.StringIO()
        render(table_, Console(file=out, width=200, color_system=None))
        assert ("Rows with one seed get no verdict" in markdown(table_)) == says
        assert ("Rows with one seed get no verdict" in out.getvalue()) == says


def test_csv_has_a_line_a_system_and_timing_last(table):
    rows = list(csv.DictReader(io.StringIO(csv_text(table))))
    assert [r["system"] for r in rows] == ["bigram", "dense", "dense+topk[k=16]"]
    assert float(rows[1]["loss/bits_per_byte"]) == pytest.approx(1.91)
    assert rows[0]["sparsity/l0"] == ""
    assert list(rows[0])[-3] == "cost/tokens_per_second"


@pytest.mark.parametrize("width", [50, 80, 200])
def test_terminal_table_fits_and_loses_no_figure(table, width):
    out = io.StringIO()
    render(table, Console(file=out, width=width, color_system=None))
    text = out.getvalue()
    assert max(len(line) for line in text.splitlines()) <= width
    assert "dense+topk[k=16]" in text
    ends = [
        f"[{c.split(' [')[1]}"
        for c in markdown(table).replace("\N{NO-BREAK SPACE}", " ").replace("|", "\n").splitlines()
        if " [" in c and c[1].isdigit()
    ]
    assert len(ends) >= 3
    for shown in ("1.910", "1,234,567", "2.500", "not converged", "no units", *(end.strip() for end in ends)):
        assert shown in text.replace("\n", " ")


def test_bad_folders_are_named_with_what_to_do(table, tmp_path):
    write(table, tmp_path / "quickstart")
    with pytest.raises(BadInput, match=r"no results folder .*quickstrat; there is: quickstart"):
        read(tmp_path / "quickstrat")
    with pytest.raises(BadInput, match="name one in it: quickstart"):
        read(tmp_path)
    path = tmp_path / "quickstart" / "table.json"
    whole = path.read_text()
    path.write_text(whole.replace('"schema_version": 1', '"schema_version": 7'))
    with pytest.raises(BadInput, match="schema_version 7, this harness reads 1: update this checkout"):
        read(tmp_path / "quickstart")
    path.write_text("[]")
    with pytest.raises(BadInput, match=r"schema_version None.*run the experiment again"):
        read(tmp_path / "quickstart")
    path.write_text(whole[:-20])
    with pytest.raises(BadInput, match="cannot read"):
        read(tmp_path / "quickstart")
    path.write_text(whole.replace('"direction": "lower"', '"direction": "down"', 1))
    with pytest.raises(BadInput, match=r"rows\.0.metrics.loss/bits_per_byte.direction"):
        read(tmp_path / "quickstart")


def test_failed_write_leaves_the_old_table_and_no_rubbish(table, tmp_path, monkeypatch):
    write(table, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HarnessError, match=r"cannot write .*table.csv: No space left on device"):
        write(table.without_timing(), tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_table_read_back_is_strict():
    with pytest.raises(ValueError, match="extra"):
        Table.model_validate({"comparison": "x", "rows": [], "provenance": provenance().model_dump(), "colour": 1})


def test_files_are_written_as_the_umask_has_it_and_the_umask_is_never_set(tmp_path, monkeypatch):
    plain = tmp_path / "plain"
    plain.write_text("")
    monkeypatch.setattr(os, "umask", lambda _mask: pytest.fail("the umask of the whole process was set"))
    write_atomically(tmp_path / "written", b"x")
    assert (tmp_path / "written").stat().st_mode == plain.stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "written"]


def test_a_note_that_seeds_say_with_other_numbers_stands_once_with_each_seeds_own():
    def seed(number: int, *notes: str) -> SeedResult:
        return SeedResult("a", "subject", number, [], RowProvenance(), list(notes))

    (row,) = build("x", [seed(0, "not converged: +0.1", "untrained"), seed(1, "not converged: +0.2", "untrained")],
                   provenance(), None).rows  # fmt: skip
    assert row.notes == ["not converged: +0.1 (seed 0); +0.2 (seed 1)", "untrained"]
    (row,) = build("x", [seed(0, "upcycled"), seed(1), seed(2, "same: 1"), seed(3, "same: 1")], provenance(), None).rows
    assert row.notes == ["upcycled (seed 0)", "same: 1 (seed 2, 3)"]


def of_seeds(system, values, name="loss/bits_per_byte", direction="lower"):
    measured = [[Measurement(name, value, "bits/byte", direction, 1)] for value in values]
    return [SeedResult(system, "subject", seed, m, RowProvenance()) for seed, m in enumerate(measured)]


def verdicts(*systems, headline=("loss/bits_per_byte",), **more):
    results = [result for name, values in systems for result in of_seeds(name, values, **more)]
    table = build("x", results, provenance(), systems[0][0], headline)
    return {difference.a: difference.verdict for difference in table.differences}


BASE = ("dense", [2.0, 2.1, 1.9])


def test_a_verdict_needs_a_headline_figure_and_several_seeds():
    clear = ("peer", [1.0, 1.1, 0.9])
    assert verdicts(BASE, clear) == {"peer": "better"}
    assert verdicts(BASE, clear, direction="higher") == {"peer": "worse"}
    assert verdicts(BASE, clear, direction="none") == {"peer": None}
    assert verdicts(BASE, clear, headline=()) == {"peer": None}
    assert verdicts(BASE, ("peer", [1.9, 2.2, 1.85])) == {"peer": "unresolved"}
    assert verdicts(("dense", [2.0]), ("peer", [1.0])) == {}


def test_the_more_verdicts_are_read_the_clearer_each_must_be():
    """One in twenty of many equal systems looks different by itself; together none is called so."""
    rng = np.random.default_rng(0)
    alone = together = 0
    for _ in range(40):
        base, *systems = [(f"s{n}", list(2 + 0.1 * rng.normal(size=3))) for n in range(13)]
        alone += sum(verdicts(base, system)[system[0]] != "unresolved" for system in systems)
        together += any(v != "unresolved" for v in verdicts(base, *systems).values())
    assert 8 <= alone <= 50  # 5% of 480
    assert together <= 6  # 5% of 40 tables, and what chance adds


def test_a_row_may_be_compared_with_another_than_the_baseline() -> None:
    results = [result(name, s, bits + s / 100) for name, bits in (("a", 2.0), ("b", 1.9), ("c", 1.5)) for s in range(3)]
    made = build("mine", results, provenance(), "a", ["loss/bits_per_byte"], {"c": "b"})
    values = {(d.a, d.b): d.value for d in made.differences if d.metric == "loss/bits_per_byte"}
    assert values == {("b", "a"): pytest.approx(-0.1), ("c", "b"): pytest.approx(-0.4)}
    assert "(from b)" in details(made)
    with pytest.raises(ValueError, match="baseline 'd' is not among"):
        build("mine", results, provenance(), "a", [], {"c": "d"})
