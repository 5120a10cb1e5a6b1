from pathlib import Path

import pytest

from harness.base.errors import HarnessError
from harness.metrics.units.reports import UnitReports


def test_what_is_written_is_read_and_says_which_schema_it_has(reports: UnitReports, tmp_path: Path) -> None:
    reports.save(tmp_path / "units.json")
    assert (tmp_path / "units.json").read_text().startswith('{"schema":1,"system":"world",')
    assert UnitReports.load(tmp_path / "units.json") == reports


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('{"schema":1', '{"schema":2', "version"),
        ('"fired":36', '"fired":35', "mlp_out.0, unit 2: the histogram holds other firings"),
        ('"neither":522', '"neither":521', "the states of a pair are not all counted tokens"),
        ('"pieces":["<end>",', '"pieces":[', "an index of a piece that is not there"),
        ('"at":2', '"at":30', "a trigger among them"),
        ('"density"', '"rate"', "density"),
        ("{", "", "cannot read"),
    ],
)
def test_a_file_that_does_not_hold_together_is_refused_in_one_line(
    reports: UnitReports, tmp_path: Path, before: str, after: str, says: str
) -> None:
    path = tmp_path / "units.json"
    reports.save(path)
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after, 1))
    with pytest.raises(HarnessError, match=says) as error:
        UnitReports.load(path)
    assert "\n" not in str(error.value)
