"""How well the best unit tells each concept, beside random directions and labels of other text."""

from __future__ import annotations

from dataclasses import replace

from harness.metrics.concepts.predictions import Scores, expected_best, of_sure_units, score_predictions
from harness.metrics.concepts.side import Means, Side, plain, side, site_of
from harness.metrics.concepts.sites import Read, codes_of, offsets
from harness.metrics.concepts.tokens import Asked
from harness.tables.measurement import Measurement

FOUND = 0.8  # F1 from which a concept counts as found


def coverage(means: Means, own: Side, random: Side, permuted: Asked, seed: int) -> list[Measurement]:
    held, resamples = means.asking.eval, means.resamples
    best, chance = (one.best_of_drawn(held, resamples) for one in (own, random))
    elsewhere = side(own.dev, own.eval, permuted, len(own.drawn), seed)
    whole, whole_chance = (score_predictions(one.told_by_living(), held, resamples) for one in (own, random))
    sure, sure_chance = (
        score_predictions(of_sure_units(one.detection, one.eval, one.living), held, resamples) for one in (own, random)
    )
    reached, reached_chance = (_found(one, means) for one in (own, random))
    found = means.beside_random("found", reached, reached_chance)
    return [
        *means.beside_random("coverage", best, chance),
        means.of("coverage_permuted", elsewhere.best_of_drawn(permuted.eval, resamples), "none"),
        *means.by_kind("coverage", best, chance),
        *means.beside_random("coverage_all", whole, whole_chance),
        *(replace(one, unit="share of concepts") for one in found),
        *means.beside_random("reconstruction", sure, sure_chance),
    ]


def _found(of: Side, means: Means) -> Scores:
    one_draw = score_predictions(of.told_by_drawn(), means.asking.eval, means.resamples)
    reached = Scores((one_draw.value >= FOUND).astype(float), (one_draw.replicates >= FOUND).astype(float))
    return reached.moved_to(expected_best(of.detection, of.living, len(of.drawn), FOUND))


def by_layer(own: Side, random: Side, dev_read: Read, units: int) -> list[Measurement]:
    """`units` of one layer alone, beside as many directions there."""
    bounds = offsets(codes_of(list(dev_read.encoded.values())))
    found = []
    for place, site in enumerate(dev_read.encoded):
        alive = [(one, site_of(bounds, one.living, place)) for one in (own, random)]
        drawn = min(units, *(len(here) for _, here in alive))
        if drawn == 0:
            continue
        for (one, here), name in zip(alive, ("", "_random"), strict=True):
            value = float(expected_best(one.detection, here, drawn).mean())
            direction = "none" if name else "higher"
            found.append(plain(f"coverage_layer_{site.layer}{name}", value, "F1", direction))
    return found
