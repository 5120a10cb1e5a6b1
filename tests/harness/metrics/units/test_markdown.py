from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.metrics.units import markdown
from harness.metrics.units.left import Left, StrongPair
from harness.metrics.units.reports import Explanation, UnitReports

A, B, C = ("mlp_out.0", 2), ("mlp_out.0", 5), ("mlp_out.1", 1)


def explained(text: str, score: float, control: float) -> Explanation:
    return Explanation(
        text=text, by="rule", scorer="rule", score=score, control="random_dictionary", control_score=control
    )


def told(make_world: Callable[..., Any]) -> list[str]:
    said = dict.fromkeys(("neither", "a", "b", "both"), (("w1", 0.5),))
    pairs = (
        StrongPair(A, C, 0.25, 0.125, "``**bold** [a](http://b.c)\n", " <b>", said),
        StrongPair(A, B, 0.0123456, 0.0, "", "w3", said),
    )
    left = Left({A: explained("one", 0.9, 0.8), B: explained("two | `x`", 0.9, 0.5)}, pairs)
    return markdown.lines([make_world().reports(left)])


def test_explained_units_stand_by_how_far_they_are_above_their_controls(make_world: Callable[..., Any]) -> None:
    first, second = (line for line in told(make_world) if line.startswith("- `"))
    assert first.startswith(
        "- `mlp_out.0` unit 5, on 9.09% of tokens; `two | ˋxˋ` (rule 0.90, random dictionary 0.50): `"
    )
    assert "`one` (rule 0.90, random dictionary 0.80)" in second
    assert "«w3»" in second


def test_pairs_stand_by_excess_over_floor_once_each_with_what_the_model_says(make_world: Callable[..., Any]) -> None:
    first, second = (line for line in told(make_world) if line.startswith("  - A"))
    assert "unit 2, B `mlp_out.1` unit 1, 0.125 bit above the floor" in first
    assert "0.0123 bit above the floor: `«w3»` then both `w1` 0.50; only A `w1` 0.50" in second


def test_text_of_the_corpus_stays_text(make_world: Callable[..., Any]) -> None:
    (line,) = (line for line in told(make_world) if "bold" in line)
    assert "`ˋˋ**bold** [a](http://b.c)⏎« <b>»`" in line
    # Outside of code spans, which are every second part, nothing is left that Markdown could read.
    outside = "".join("\n".join(told(make_world)).split("`")[::2])
    assert not set("*[]<>_") & set(outside)
    assert "http" not in outside


def test_without_explanations_units_stand_by_their_domains_and_else_by_their_tokens(
    make_world: Callable[..., Any], tmp_path: Path
) -> None:
    def chosen_by(reports: UnitReports) -> tuple[str, str]:
        lines = markdown.lines([reports])
        return next(line for line in lines if line.startswith("On ")), next(ln for ln in lines if ln.startswith("- `"))

    by, first = chosen_by(make_world().reports())
    assert "lopsided domains, among those with 15 firings" in by
    # C and D are all of one domain, and D fires only twice.
    assert first.startswith("- `mlp_out.1` unit 1, on 3.03% of tokens; 100% of its firings in `early`, which has 67%")
    by, first = chosen_by(make_world(domains=False).reports())
    assert "most often on the same token" in by
    assert "unit 2" in first
    markdown.write([], tmp_path)
    assert not list(tmp_path.iterdir())
