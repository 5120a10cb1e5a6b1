"""What a row says besides its figures."""

from __future__ import annotations

from typing import Any, cast

import pytest

from harness.run.notes import how_chosen
from harness.training.trials import Choice, Outcome, Round, Tried


def chosen(*taken: int, of: int = 3) -> list[str]:
    """Notes of a row for which so many rounds of `of` candidates each took these."""
    tried = tuple(Tried(f"x {i}", (Outcome(float(i), 1.0),)) for i in range(of))
    rounds = tuple(Round(f"round {i}", tried, at) for i, at in enumerate(taken))
    spec: Any = type("Spec", (), {"name": "peer"})
    return how_chosen({"peer": Choice(rounds, 0.125, 9, 1.0, 1.0)}, cast(Any, spec))


@pytest.mark.parametrize(
    ("taken", "ends"), [((1, 1), None), ((0, 1), "round 0"), ((1, 2), "round 1"), ((0, 2), "round 0, round 1")]
)
def test_what_was_taken_at_an_end_of_what_was_tried_is_said(taken: tuple[int, ...], ends: str | None) -> None:
    _, *more = chosen(*taken)
    assert more == ([] if ends is None else [f"chosen at an end of what was tried: {ends}"])


def test_two_candidates_have_nothing_between_them() -> None:
    assert len(chosen(0, of=2)) == 1
