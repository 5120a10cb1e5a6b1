"""The page without a browser: one file that needs nothing, the same bytes again, text as text."""

from __future__ import annotations

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.report import figures
from harness.report.page import render, units
from harness.report.page.content import content, own_results
from harness.report.page.scoreboard import scoreboard
from harness.tables import folder

from .worlds import HOSTILE, reports, results, table


class Elements(HTMLParser):
    """Every element with its attributes, and the text of each script by its id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self._inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id") or dict(attrs).get("data-system") if tag == "script" else None

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[self._inside] = self.scripts.get(self._inside, "") + data


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return results(tmp_path_factory.mktemp("results"), question=f"Who? {HOSTILE}").read_text(encoding="utf-8")


def test_it_loads_nothing_and_its_policy_forbids_to(page: str) -> None:
    elements = Elements(page).found
    policy = next(a["content"] for tag, a in elements if tag == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    loads = [
        (tag, a) for tag, a in elements for key in ("src", "href", "srcset") if key in a and tag not in ("a", "use")
    ]
    assert loads == []
    assert len(page.encode()) < 2_000_000


def test_hostile_text_adds_no_element_and_ends_no_script(page: str) -> None:
    elements = Elements(page)
    assert not [a for tag, a in elements.found if tag == "img" or "onerror" in a]
    json.loads(elements.scripts["content"])
    scripts = [a for tag, a in elements.found if tag == "script"]
    assert len(scripts) == 2 + 1 + 4  # its content and its units, Vega, and its own


def test_nothing_in_the_data_of_a_script_ends_it() -> None:
    said = str(render._json({HOSTILE: [HOSTILE]}))
    assert "<" not in said
    assert json.loads(said) == {HOSTILE: [HOSTILE]}


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    path = results(tmp_path)
    first = path.read_bytes()
    made = folder.read(tmp_path)
    render.write(made, figures.drawings(made, render_curves(tmp_path)), tmp_path)
    assert path.read_bytes() == first


def test_the_texts_are_made_again_from_table_json_alone(tmp_path: Path) -> None:
    from harness.cli import report

    results(tmp_path)
    texts = ("table.md", "details.md", "table.csv")
    first = {name: (tmp_path / name).read_bytes() for name in (*texts, "table.json")}
    for name in texts:
        (tmp_path / name).unlink()
    report([tmp_path], None)
    assert {name: (tmp_path / name).read_bytes() for name in first} == first


def render_curves(where: Path) -> Any:
    from harness.report import curves

    return curves.read(where)


def test_tables_and_pictures_are_there_without_scripts(page: str) -> None:
    plain = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    for text in ("Verdict", "bits per byte less than", "peer", "<svg", "equal total", "Over training"):
        assert text in plain


def test_a_units_report_has_its_explanation_beside_its_controls(page: str) -> None:
    packed = Elements(page).scripts["peer"]
    unpacked = json.loads(zlib.decompress(base64.b64decode(packed)))
    said = {(unit["site"], unit["unit"]): unit["said"] for unit in unpacked["units"]}
    assert said["mlp.0", 1] == {
        "text": "fires on dog", "by": "rule",
        "scores": {"rule_balanced_accuracy": 0.95, "rule_f1": 0.5, "constant_rule": 0.5, "random_dictionary_rule": 0.7},
    }  # fmt: skip
    assert said["mlp.1", 1] is None
    explained = {(one["site"], one["unit"]) for one in unpacked["units"] if "explanation" in one}
    assert explained == {key for key, text in said.items() if text is None}  # its text is there once


def test_reports_that_do_not_fit_are_named_and_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results(tmp_path)
    made = folder.read(tmp_path)
    details = folder.details_folder(tmp_path, "dense", 0)
    details.mkdir(parents=True)
    (details / "units.json").write_text(json.dumps(reports("dense", 40)))
    monkeypatch.setattr(units, "MOST_BYTES", len(units.collect(made, tmp_path)[0].packed) + 10)
    found = units.collect(made, tmp_path)
    assert [(one.system, bool(one.packed)) for one in found] == [("dense", True), ("peer", False)]
    assert units.left_out(made, found) == ["peer (6 units: details/peer seed 0/units.json)"]
    assert "alone: peer (6 units: details/peer seed 0/units.json)." in render.page(made, [], found)


def test_a_dot_lies_inside_its_interval_and_zero_is_marked_where_the_axis_crosses_it() -> None:
    board = scoreboard(table())
    cells = [line.cells[0] for _, lines in board.groups for line in lines]
    dots = [cell.dot for cell in cells if cell.dot is not None]
    assert all(dot.low <= dot.at <= dot.high <= board.width for dot in dots)
    assert all(dot.zero is not None for dot in dots)
    verdicts = {line.system: line.cells[0].verdict for _, lines in board.groups for line in lines}
    assert verdicts == {"dense": "", "dense+topk": "▼ worse", "peer": "▲ better"}


def test_the_scripts_know_every_figure_and_difference() -> None:
    made = table()
    known = content(made)
    figures_of = {row["system"]: row["figures"] for row in known["rows"]}
    for row in made.rows:
        assert set(figures_of[row.system]) == set(row.metrics)
    loss = "loss/spliced_bits_per_byte"
    assert figures_of["peer"][loss][3] == pytest.approx([2.1, 2.11, 2.12], abs=0.02)
    base, value, low, high, verdict = known["differences"][loss]["peer"]
    assert (base, verdict) == ("dense", "better")
    assert low < value < high


def test_pairs_of_all_systems_stand_by_how_far_they_are_above_their_floor(page: str, tmp_path: Path) -> None:
    assert "Pairs that say most together" in page
    results(tmp_path)
    pairs = units.strongest(units.collect(folder.read(tmp_path), tmp_path))
    found = [(pair.unit, pair.with_unit, pair.above) for pair in pairs]
    assert found[::2] == [(0, 1, 0.375), (1, 2, 0.375), (2, 3, 0.375)]
    assert (pairs[0].address, pairs[0].with_address) == ("#unit/peer/0/0/pair/0/1", "#unit/peer/0/1")
    assert [pair.with_report for pair in pairs] == [pair.with_unit < 3 for pair in pairs]  # the page has three a site
    assert f'<a href="{pairs[0].with_address}">' in page


def test_pairs_stand_beside_the_best_of_a_model_that_learnt_nothing_and_their_rows_doubts(tmp_path: Path) -> None:
    results(tmp_path)
    made = folder.read(tmp_path)
    assert "No model that learnt nothing has pairs" in render.page(made, [], units.collect(made, tmp_path))
    peer, untrained = made.rows[2], "dense[untrained=true]"
    peer.notes.append("not converged: more")
    made.rows.append(peer.model_copy(update={"system": untrained, "unmatched": "an untrained control", "notes": []}))
    details = folder.details_folder(tmp_path, untrained, 0)
    details.mkdir(parents=True)
    (details / "units.json").write_text(json.dumps(reports(untrained, 4)))
    found = units.collect(made, tmp_path)
    (best,) = units.best_untrained(made, found)
    assert (best.system, best.above) == (untrained, 0.375)
    text = render.page(made, [], found)
    assert f'<code>{untrained}</code> <a href="{best.address}">0.375 bit</a>.' in text
    table_of_pairs = text[text.index("Pairs that say most") : text.index('id="units-live"')]
    assert "<code>peer</code><small>not converged</small>" in table_of_pairs
    assert f"<code>{untrained}</code><small>not matched</small>" in table_of_pairs


ABOVE = "autointerp/rule_balanced_accuracy_above_random"


@pytest.mark.parametrize(
    ("against", "n_seeds", "headline", "says"),
    [
        ("above", 3, [ABOVE], "above its control"),
        ("unresolved", 3, [ABOVE], "not told from its control"),
        (None, 1, [ABOVE], "no verdict: one seed"),
        (None, 3, [], "no verdict: not a headline figure"),
    ],
)
def test_a_system_says_whether_its_own_figure_is_told_from_its_control(
    against: Any, n_seeds: int, headline: list[str], says: str
) -> None:
    made = table()
    row = made.rows[2].model_copy(update={"seeds": list(range(n_seeds))})
    known = row.metrics["usage/dead"]
    figure = known.model_copy(update={"value": 0.1, "low": None, "high": None, "against_control": against})
    row.metrics[ABOVE] = figure.model_copy(update={"direction": "higher", "unit": ""})
    made = made.model_copy(update={"headline": [*made.headline, *headline], "rows": [row]})
    assert own_results(made, row) == [f"rule balanced accuracy above random 0.1, {says}"]
    del row.metrics[ABOVE]
    assert own_results(made, row) == []


def test_a_pair_of_which_both_units_tell_stands_once() -> None:
    made = reports("peer", 4)  # units 0 and 1 of two sites, each with a partner of the next number
    for one in made["units"]:
        one["partners"][0]["unit"] = 1 - one["unit"]
    assert [(pair.layer, pair.unit, pair.with_unit) for pair in units._pairs(made)] == [("0", 0, 1), ("1", 0, 1)]


def test_a_rows_doubts_stand_at_its_name() -> None:
    made = table()
    made.rows[0].notes.append("not converged: more")
    assert [line.doubts for _, lines in scoreboard(made).groups for line in lines] == [["not converged"], [], []]
