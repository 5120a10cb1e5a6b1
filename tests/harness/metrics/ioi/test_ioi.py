"""Patching where it is known what each unit says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.metrics.ioi import _half, _largest  # pyright: ignore[reportPrivateUsage]
from harness.metrics.ioi.patching import attribution, native, patched
from harness.metrics.ioi.prompts import TEMPLATES, Prompts, names_of, prompts
from harness.systems.system import System

from ..faithfulness.conftest import axis, silent, system, unit


def subject() -> System:
    """Unit 0 wakes on word 0 and says word 3, unit 1 on word 1 and says word 4, unit 2 on both and says both."""
    model = silent(layers=1, units=4)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        for word, place in ((3, 6), (4, 7)):
            model.lm_head.weight[word, place] = 3.0
    unit(model, 0, 0, axis(0), axis(6))
    unit(model, 0, 1, axis(1), axis(7))
    unit(model, 0, 2, axis(0) + axis(1), axis(6) + axis(7))
    return system(model)


def asked() -> Prompts:
    """The sentence ends with word 0, its twin with word 1; word 3 is the answer and word 4 the wrong one."""
    clean, twin = torch.tensor([[5, 2, 0], [2, 5, 0]]), torch.tensor([[5, 2, 1], [2, 5, 1]])
    return Prompts(clean, twin, torch.tensor([3, 3]), torch.tensor([4, 4]))


def test_units_bring_back_what_they_say_and_all_of_them_everything() -> None:
    of, these = subject(), asked()
    before = native(of, these)
    assert (before.difference > 1).all()
    assert (before.difference_twin < -1).all()
    site = of.sites[0]

    def with_units(*units: int) -> tuple[float, float]:
        chosen = torch.zeros(4, dtype=torch.bool)
        chosen[list(units)] = True
        moved, divergence = patched(of, these, before, {site: chosen})
        apart = before.difference - before.difference_twin
        return float(((moved - before.difference_twin) / apart).mean()), float(divergence.mean())

    nothing, everything = with_units(), with_units(0, 1, 2, 3)
    assert nothing[0] == pytest.approx(0, abs=1e-6)
    assert everything[0] == pytest.approx(1, abs=1e-5)
    assert everything[1] == pytest.approx(0, abs=1e-5)
    assert nothing[1] > 0.1
    assert 0.2 < with_units(0)[0] < 0.8
    assert with_units(2)[0] == pytest.approx(0, abs=1e-5)  # wakes on both, and says both names alike


def test_attribution_finds_the_units_that_say_the_names_though_one_is_silent_in_the_twin() -> None:
    of, these = subject(), asked()
    score = attribution(of, these, native(of, these))[of.sites[0]]
    assert set(score.topk(2).indices.tolist()) == {0, 1}
    assert score[2] == pytest.approx(0, abs=1e-4)


def test_the_largest_are_taken_over_all_sites() -> None:
    site_a, site_b = "a", "b"
    masks = _largest({site_a: torch.tensor([0.1, 5.0]), site_b: torch.tensor([4.0, 0.2, 3.0])}, 3)  # pyright: ignore
    assert masks[site_a].tolist() == [False, True]  # pyright: ignore
    assert masks[site_b].tolist() == [True, False, True]  # pyright: ignore


@pytest.mark.parametrize(
    ("shares", "needed"),
    [
        ((0.1, 0.4, 0.6, 0.9), 2 * 2**0.5),
        ((0.6, 0.7, 0.8, 0.9), 1),
        ((0.1, 0.2, 0.3, 0.4), None),
        ((0.6, 0.4, 0.6, 0.9), 2 * 2**0.5),
    ],
)
def test_half_is_back_from_where_on_it_stays_back(shares: tuple[float, ...], needed: float | None) -> None:
    found = _half(np.array([1.0, 2.0, 4.0, 8.0]), np.array(shares))
    assert np.isnan(found) if needed is None else found == pytest.approx(needed)


class Words:
    """A tokenizer of whole words, each with the space before it."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        parts = text.replace(",", " ,").replace(".", " .").split(" ")
        return [self.known.setdefault(part, len(self.known) + 1) for part in parts if part]


def test_twins_are_of_one_length_and_the_answer_is_named_once() -> None:
    words = Words()
    names = names_of(words)  # pyright: ignore[reportArgumentType]
    made = prompts(words, 0, 6, np.random.default_rng(0), names)  # pyright: ignore[reportArgumentType]
    assert sum(map(len, made)) == 6 * len(TEMPLATES)
    for one in made:
        assert one.clean.shape == one.twin.shape
        assert (one.clean[:, 0] == 0).all()
        for clean, twin, answer, wrong in zip(one.clean, one.twin, one.answer, one.wrong, strict=True):
            assert (clean == answer).sum() == 1
            assert (clean == wrong).sum() == 2
            assert not torch.isin(torch.stack([answer, wrong]), twin).any()
