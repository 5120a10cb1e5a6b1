"""What metrics cost, at sizes that cost next to nothing."""

import json
from pathlib import Path

import numpy as np

from harness.bench.concepts_cost import ConceptLoad
from harness.bench.edits import EditSize
from harness.bench.metrics import MetricLoad, measure, planted
from harness.metrics.joint.counts import meetings

SIZE = MetricLoad(tokens=3000, units=200, active=8, least=5)
CONCEPTS = ConceptLoad(tokens=2000, concepts=30, holding=3, resamples=100)
EDITS = EditSize(pairs=30, contexts=5, d_model=16, n_layers=2, sequences=12, length=32, vocab_size=300)


def test_the_table_states_what_was_counted(tmp_path: Path) -> None:
    report = measure(tmp_path, SIZE, EDITS, CONCEPTS)
    met = meetings(planted(SIZE), SIZE.least)
    assert (report.meetings, report.distinct, report.kept) == (met.n_all, met.distinct, len(met.n))
    assert 0 < report.kept < report.distinct
    assert [step.seconds > 0 for step in report.steps] == [True] * 4
    assert report.peak_bytes > 0
    assert report.concepts.seconds > 0
    assert "2,000 tokens to choose on and as many to score on × 200 units" in (tmp_path / "table.md").read_text()
    # Of 30 pairs 10 are in the first layer, 10 in the last, which the headline leaves out, and 10 across both.
    assert [(edit.subject, edit.pairs, edit.seconds > 0) for edit in report.edits] == [
        ("dense", 10, True),
        ("peer", 10, True),
    ]
    stored = json.loads((tmp_path / "table.json").read_text())
    assert stored["size"]["tokens"] == 3000
    assert f"{met.n_all:,} meetings of {met.distinct:,} pairs" in (tmp_path / "table.md").read_text()


def test_made_up_codes_are_sorted_sets_of_about_the_size_asked_for_and_rates_fall() -> None:
    firing = planted(SIZE)
    inside = np.diff(firing.token) == 0
    assert (np.diff(firing.units)[inside] > 0).all()
    assert 6 < len(firing.units) / SIZE.tokens < 8.1
    assert firing.rates[:5].min() > 5 * firing.rates[-20:].mean()
