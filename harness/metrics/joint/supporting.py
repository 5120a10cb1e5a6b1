"""What the codes alone show: who fires together, what they say of each other, what they predict together.

It decides nothing: units are functions of one input, so everything here may have a common cause; edits (excess.py) are
what the question is answered by. Units fire where they are among the `active` strongest of their token at their site.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.metrics.joint import predicted, sampling, together
from harness.metrics.joint.firing import Firing
from harness.metrics.joint.options import SupportingOptions
from harness.metrics.joint.pairs import Fired, fired, strongest
from harness.metrics.joint.work import Work

if TYPE_CHECKING:
    import numpy as np

    from harness.systems.evaluation import Evaluation
    from harness.systems.system import Site
    from harness.tables.measurement import Measurement


def supporting(
    evaluation: Evaluation, options: SupportingOptions, active: int, rng: np.random.Generator
) -> list[Measurement]:
    """Of pairs within a site. The null is that of null.py: rows and columns as they are, otherwise chance.

    Who fires together:
    - together_more, together_less: share of all meetings that are of pairs which meet more, or less, often than the
      null has it (two-sided, Benjamini–Hochberg at 5% over all pairs of usable units, pruned ones counted as not found;
      tokens taken as independent, so text that is clustered raises both);
    - lift: Σ meetings / Σ expected over pairs drawn in proportion to meetings on dev, intervals by documents; npmi,
      phi: means over them; lifted: share of them whose own interval (documents resampled, 95%) lies above 1;
      lift_within_documents: against draws that also keep every unit's tokens in every document;
      lift_within_pools, together_more_within_pools (pools, MoE-X, Switch): within a pool, on tokens that use it;
    - null_check: expected meetings by curveball draws / by formula, over the drawn pairs: 1 if the formula holds;
    - communities, modularity, in_communities (share of usable units): of the graph of pairs found to meet more.
    What they say of each other, bits per meeting, less the mean of draws that keep rows, columns and documents:
    - information = information_on_on + information_on_value + information_value_value; total_correlation of groups of
      units drawn from one token, per token where two of the group fire.
    What they predict together, held out:
    - interaction_gain: of the next token, bits per meeting, of an A·B term; interaction_gain_shuffled: the same with
      B's values permuted over the pair's contexts;
    - products_gain_next, products_gain_domain (bits a token), products_gain_board (bits a square, on tokens of games:
      who holds it): of a readout with products of units (all sites) over one without; additive_gain_...: of that over
      frequencies alone; products_gain_next_shuffled: with units and values permuted within documents.

    together.json in the artifacts has the strongest pairs and the communities. A figure that cannot be had is nan and
    says what it would need.
    """
    dev_text = sampling.Positions.of(evaluation.batches(options.dev_sequences, dev=True))
    text = sampling.Positions.of(evaluation.batches(evaluation.codes_sequences))
    read = fired(evaluation, evaluation.batches(options.dev_sequences, dev=True), active)
    dev = {site: Firing.of(read[site], dev_text.document) for site in evaluation.system.sites}
    test = {site: _stored(evaluation, site, active, text) for site in evaluation.system.sites}
    # Tokens on which nothing may fire are no rows of the null either: they would make every two units look attached.
    on_dev, on_test = (evaluation.counted(torch.from_numpy(t.ids)).numpy() for t in (dev_text, text))
    work = Work(
        evaluation,
        options,
        rng,
        dev_text.keep(on_dev),
        text.keep(on_test),
        {site: firing.on(on_dev) for site, firing in dev.items()},
        {site: firing.on(on_test) for site, firing in test.items()},
    )
    return [
        *together.together(work),
        *together.said(work),
        *predicted.interactions(work),
        *predicted.products(work),
    ]


def _stored(evaluation: Evaluation, site: Site, active: int, text: sampling.Positions) -> Firing:
    encoded = evaluation.load_codes(site)
    n, codes = len(text.ids), encoded.codes
    return Firing.of(Fired(*strongest(encoded, active), n, n, codes.n_units), text.document)
