from pathlib import Path

from harness.report import figures
from harness.tables import build, table
from harness.tables.build import SeedResult
from harness.tables.measurement import Measurement
from harness.tables.table import RowProvenance

from ..tables.test_table import provenance


def a_table() -> table.Table:
    def result(system: str, kind: table.Kind, bits: float, l0: float) -> SeedResult:
        found = [Measurement("loss/bits_per_byte", bits, "bit/byte", "lower", 1)]
        if kind != "reference":
            found += [
                Measurement("loss/spliced_bits_per_byte", bits + 0.1, "bit/byte", "lower", 1),
                Measurement("sparsity/strength_l0_total", l0, "units/token", "lower", 1),
            ]
        return SeedResult(system, kind, 0, found, RowProvenance())

    results = [
        result("bigram", "reference", 2.5, 0),
        result("dense", "subject", 2.2, 900),
        result("peer", "subject", 2.1, 60),
    ]
    return build.build("planted", results, provenance(), None)


def test_figures_are_drawn_for_what_the_table_has_and_no_others(tmp_path: Path) -> None:
    curve = tmp_path / "curve.jsonl"
    curve.write_text('{"step": 1, "tokens": 10, "loss": 5.0}\n{"step": 2, "tokens": 20, "loss": 4.0}\n')
    stale = tmp_path / "figures" / "usage.png"
    stale.parent.mkdir()
    stale.write_bytes(b"of an earlier run")
    written = figures.write(a_table(), tmp_path / "figures", {("dense", 0): curve})
    names = {path.name for path in written}
    assert names == {"loss_against_sparsity.png", "bits_per_byte.png", "training.png", "overview.html"}
    assert not stale.exists()


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        figures.write(a_table(), tmp_path / name, {})
    for path in (tmp_path / "one").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_the_page_needs_nothing_from_elsewhere_and_names_every_system(tmp_path: Path) -> None:
    figures.write(a_table(), tmp_path, {})
    page = (tmp_path / "overview.html").read_text()
    assert "dense" in page
    assert "peer" in page
    assert '<script src="http' not in page


def test_more_systems_than_colours_are_still_told_apart() -> None:
    found = [Measurement("loss/bits_per_byte", 2.0, "bit/byte", "lower", 1)]
    results = [SeedResult(f"system{i}", "subject", 0, found, RowProvenance()) for i in range(20)]
    styles = figures._style(build.build("many", results, provenance(), None))
    assert len(set(styles.values())) == 20
