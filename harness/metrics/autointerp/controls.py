"""What a score is worth: the same protocol where there is nothing to find, or where the answer is wrong.

- constant: an explanation that says the unit always fires;
- another_unit: the explanation of another unit of the sample;
- shuffled: the unit's activations moved to random tokens, explained and scored anew;
- random_direction: a unit that reads a random direction of what is written at the site, and fires as often.

The first three measure the judge and the protocol: a judge whose scores are not clearly above them is not usable. The
fourth measures the system: a random direction of a layer may well say something about tokens. So does the same system
on an untrained subject, which is a row of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from harness.metrics.autointerp.collect import WantedContexts, collect
from harness.metrics.autointerp.contexts import Context, Explanation, UnitContexts
from harness.metrics.autointerp.firings import Text
from harness.metrics.autointerp.sampling import Drawn
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site

CONTROLS = ("constant", "another_unit", "shuffled", "random_direction")
OF_JUDGE = ("constant", "another_unit", "shuffled")
_SHUFFLED, _DIRECTION = 1, 2  # streams of a unit's generator; 0 draws its contexts


def constant() -> Explanation:
    return Explanation("The unit fires on every token.", "constant", _always)


def _always(context: Context) -> list[float]:
    return [1.0] * len(context.tokens)


def of_another(explanations: Sequence[Explanation], generator: np.random.Generator) -> list[Explanation]:
    """Every explanation once, none at its own place: along one random cycle. A single one stays."""
    order = generator.permutation(len(explanations))
    found = list(explanations)
    for here, there in zip(order, np.roll(order, 1), strict=True):
        found[here] = explanations[there]
    return found


def shuffled(units: Sequence[Drawn], text: Text, wanted: WantedContexts, seed: int) -> list[UnitContexts | None]:
    """None where the moved firings leave too few contexts."""
    found = []
    for drawn in units:
        generator = drawn.firings.generator(drawn.column, seed + _SHUFFLED)
        _, strengths = drawn.firings.of_column(drawn.column)
        tokens = np.sort(generator.choice(len(text), len(strengths), replace=False))
        moved = generator.permutation(strengths)
        found.append(_collected("shuffled", drawn, text, tokens, moved, wanted, generator))
    return found


def random_directions(
    units: Sequence[Drawn], evaluation: Evaluation, text: Text, wanted: WantedContexts, seed: int
) -> list[UnitContexts | None]:
    """For every unit one that reads a random direction of the site's output and fires on as many tokens: where the
    projection is largest, by how much it exceeds the next one."""
    generators = [drawn.firings.generator(drawn.column, seed + _DIRECTION) for drawn in units]
    projected = _projections(units, evaluation, generators)
    found = []
    for drawn, values, generator in zip(units, projected, generators, strict=True):
        count = int(drawn.firings.counts[drawn.column])
        order = np.argsort(-values, kind="stable")
        tokens = np.sort(order[:count])
        strengths = values[tokens] - values[order[min(count, len(order) - 1)]]
        found.append(_collected("random direction", drawn, text, tokens, strengths, wanted, generator))
    return found


@torch.no_grad()
def _projections(
    units: Sequence[Drawn], evaluation: Evaluation, generators: Sequence[np.random.Generator]
) -> list[np.ndarray]:
    """What each unit's random direction sees on every token with stored codes. `[tokens]` each"""
    by_site: dict[str, list[int]] = {}
    for index, drawn in enumerate(units):
        by_site.setdefault(drawn.firings.site, []).append(index)
    directions: dict[str, Tensor] = {}
    parts: dict[str, list[Tensor]] = {site: [] for site in by_site}

    def watch(site: Site, _x: Tensor, y: Tensor) -> None:
        name = str(site)
        if name not in by_site:
            return
        if name not in directions:
            drawn = [generators[index].standard_normal(y.shape[-1]) for index in by_site[name]]
            directions[name] = torch.as_tensor(np.stack(drawn, axis=1), dtype=y.dtype, device=y.device)
        parts[name].append((y.flatten(0, 1) @ directions[name]).float().cpu())

    with evaluation.system.watching(watch):
        for batch in evaluation.batches(evaluation.codes_sequences):
            evaluation.system.model(batch.input_ids, use_cache=False, logits_to_keep=1)
    found = [np.zeros(0)] * len(units)
    for name, indices in by_site.items():
        values = torch.cat(parts[name]).numpy()  # [tokens, units of the site]
        for place, index in enumerate(indices):
            found[index] = values[:, place]
    return found


def _collected(
    name: str,
    drawn: Drawn,
    text: Text,
    tokens: np.ndarray,
    strengths: np.ndarray,
    wanted: WantedContexts,
    generator: np.random.Generator,
) -> UnitContexts | None:
    """No neighbours: near misses are silent windows on the same tokens alone."""
    where = f"{name} at {drawn.firings.site}"
    return collect(text, where, drawn.contexts.unit, tokens, strengths, (), wanted, generator)
