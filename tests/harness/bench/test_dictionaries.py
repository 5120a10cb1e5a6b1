"""The ground-truth table, on data so small that every score is near what it should be."""

import json
from pathlib import Path

import pytest

pytest.importorskip("sae_lens")

from harness.bench.dictionaries import Bed, measure

BED = Bed(
    n_features=24, d=20, per_token=2, sequence_tokens=64, train_tokens=25_600, batch_tokens=64, tested=2_560, seed=1
)


def test_dictionaries_recover_planted_features_and_the_table_says_so(tmp_path: Path) -> None:
    names = ["topk", "transcoder", "feature_choice[zipf_exponent=1]"]
    report = measure(tmp_path, BED, names)
    assert [kind.name for kind in report.kinds] == names
    by_name = {kind.name: kind for kind in report.kinds}
    assert by_name["topk"].recovery.mean_max_cosine > 0.8
    assert by_name["transcoder"].recovery.mean_max_cosine > 0.7  # of where the features go, not of where they are read
    assert by_name["topk"].l0 == pytest.approx(2, rel=0.05)
    stored = json.loads((tmp_path / "table.json").read_text())
    assert stored["kinds"][0]["recovery"]["recall"] == by_name["topk"].recovery.recall
    text = (tmp_path / "table.md").read_text()
    assert f"| `topk` | {by_name['topk'].recovery.mean_max_cosine:.3f} |" in text
