"""The control that a score is read against: a dictionary of random directions that compete as the system's units do.

As wide as the system's at each site; on every token as many of its units fire as of the system's, those onto which the
site's output, less its mean, projects most. Its units are explained and scored as the system's own are, from the same
text and against the same kinds of negatives. A random projection's tail is nearly a set of tokens, and competition
makes it more so: a system whose units score no better has units that say no more than directions do. [U: ours]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.metrics.autointerp.collect import WantedContexts, collect
from harness.metrics.autointerp.contexts import UnitContexts
from harness.metrics.autointerp.firings import Firings, Text
from harness.metrics.autointerp.sampling import Drawn
from harness.metrics.autointerp.writes import neighbours
from harness.systems.directions import competing
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded, Site

_STREAM = 4  # of a unit's generator
_TRIED = 8  # random units tried for a unit of the system, the nearest in firing rate first


@dataclass(frozen=True)
class RandomDictionary:
    """firings: by the site's name; directions `[columns, d_model]`, of the units that fire."""

    firings: dict[str, Firings]
    directions: dict[str, Tensor]


@torch.no_grad()
def random_dictionary(
    evaluation: Evaluation, sites: Mapping[Site, Firings], strongest: int, seed: int
) -> RandomDictionary:
    """On the tokens with stored codes."""
    written: dict[Site, list[Tensor]] = {site: [] for site in sites}

    def watch(site: Site, _x: Tensor, y: Tensor) -> None:
        written[site].append(y.flatten(0, 1).float().cpu())

    with evaluation.system.watching(watch):
        for batch in evaluation.batches(evaluation.codes_sequences):
            evaluation.system.model(batch.input_ids, use_cache=False, logits_to_keep=1)
    firings, directions = {}, {}
    for place, (site, own) in enumerate(sites.items()):
        y = torch.cat(written.pop(site))  # [tokens, d_model]
        generator = np.random.default_rng([seed, 4, place])
        drawn = torch.from_numpy(generator.standard_normal((own.n_units, y.shape[1])).astype(np.float32))
        drawn = drawn / drawn.norm(dim=1, keepdim=True)
        codes = competing(y - y.mean(0), drawn, np.bincount(own.tokens, minlength=own.n_tokens))
        found = Firings.of(str(site), Encoded(codes, codes.values), strongest)
        firings[str(site)], directions[str(site)] = found, drawn[torch.as_tensor(found.units)]
    return RandomDictionary(firings, directions)


def paired(
    units: Sequence[Drawn], dictionary: RandomDictionary, text: Text, wanted: WantedContexts, each: int, seed: int
) -> list[UnitContexts | None]:
    """For every unit a random one of its site that fires about as often, none twice; None where none has enough
    contexts. `each`: neighbours that near misses are drawn from, as for the system's own units."""
    taken: dict[str, set[int]] = {}
    found: list[UnitContexts | None] = []
    for drawn in units:
        site = drawn.firings.site
        firings, used = dictionary.firings[site], taken.setdefault(site, set())
        own = drawn.firings.counts[drawn.column]
        apart = np.abs(np.log(firings.counts) - np.log(own))
        contexts = None
        tried = 0
        # Ties by the direction's number: strengths, and so the order of columns, hang on the last digits of sums.
        for column in np.lexsort((firings.units, apart)):
            if int(column) in used:
                continue
            used.add(int(column))
            alike = neighbours(firings, int(column), dictionary.directions[site], each, wanted.least)
            tokens, strengths = firings.of_column(int(column))
            generator = drawn.firings.generator(drawn.column, seed + _STREAM)
            unit = int(firings.units[column])
            contexts = collect(text, f"random at {site}", unit, tokens, strengths, alike, wanted, generator)
            tried += 1
            if contexts is not None or tried == _TRIED:
                break
        found.append(contexts)
    return found
