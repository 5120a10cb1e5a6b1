from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.metrics.autointerp import output
from harness.metrics.autointerp.contexts import Context, Explanation, UnitContexts
from harness.metrics.autointerp.firings import Firings
from harness.metrics.autointerp.sampling import Drawn


def test_tokens_that_fire_are_marked() -> None:
    assert output.marked(Context(0, ("a", " b", " c"), (0.0, 2.0, 0.0), 1)) == "a« b» c"


def test_every_unit_is_a_row_of_the_parquet_file_and_of_the_table(
    planted: Callable[[str], UnitContexts], tmp_path: Path
) -> None:
    import pyarrow.parquet

    firings = Firings("s", 1, 1, np.zeros(1, int), np.zeros(2, int), np.zeros(0, int), np.zeros(0, np.float32))
    units = [Drawn(planted(name), firings, 0, 0, 0.5, 0.1) for name in ("the", "money")]
    said = [Explanation("one", "rule"), Explanation("two", "rule")]
    rows = output.rows(units, said, {"rule_balanced_accuracy": np.array([0.75, np.nan])})
    output.write(rows, tmp_path, "peer")
    stored = pyarrow.parquet.read_table(tmp_path / output.UNITS_FILE).to_pylist()
    assert [row["explanation"] for row in stored] == ["one", "two"]
    assert [row["rule_balanced_accuracy"] for row in stored] == [0.75, None]
    assert len(stored[0]["score"]) == len(stored[0]["score_quantiles"]) == 20
    for row in stored:
        assert not set(row["explain_documents"]) & set(row["score_documents"])
    columns = output.for_log_table(rows)
    assert {len(values) for values in columns.values()} == {2}
    assert all(isinstance(v, str | int | float | None) for values in columns.values() for v in values)
    assert columns["score"][0].count("«") >= output.SHOWN


def test_the_page_shows_the_best_unit_first_and_is_never_markup_of_a_judge(
    planted: Callable[[str], UnitContexts], tmp_path: Path
) -> None:
    firings = Firings("s", 1, 1, np.zeros(1, int), np.zeros(2, int), np.zeros(0, int), np.zeros(0, np.float32))
    units = [Drawn(planted(name), firings, 0, 0, 0.5, 0.1) for name in ("the", "money", "the")]
    said = [Explanation("bad <script>alert(1)</script>", "llm"), Explanation("good", "llm"), Explanation("mute", "llm")]
    output.write(output.rows(units, said, {"detection_accuracy": np.array([0.5, 0.9, np.nan])}), tmp_path, "peer<1>")
    page = (tmp_path / output.PAGE_FILE).read_text()
    assert page.index("good") < page.index("bad ") < page.index("mute")
    assert "<script>" not in page
    assert "peer&lt;1&gt;: 3 units by detection_accuracy" in page
    assert "<mark>" in page
    assert "«" not in page


def test_the_table_is_what_mlflow_takes(planted: Callable[[str], UnitContexts], tmp_path: Path) -> None:
    """log_table wants equally long columns of a dict; read back, so that nothing in them is lost on the way."""
    pd = pytest.importorskip("pandas")
    firings = Firings("s", 1, 1, np.zeros(1, int), np.zeros(2, int), np.zeros(0, int), np.zeros(0, np.float32))
    rows = output.rows([Drawn(planted("the"), firings, 0, 0, 0.5, 0.1)], [Explanation("one", "rule")], {})
    frame = pd.DataFrame(output.for_log_table(rows))
    assert frame.loc[0, "explanation"] == "one"
