"""How many units fire on a token, and how few carry what is written.

L0 counts non-zero entries and flatters nobody only where units really fall silent: a gelu neuron never does. So systems
are matched on *strength-L0*, the fewest units that carry 95% of a token's total strength.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from harness.base.settings import Strict
from harness.metrics.metric import register
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded
from harness.tables.measurement import Direction, Measurement
from harness.tables.statistics import document_bootstrap

VERSION = 3
SHARE = 0.95


class Options(Strict):
    """No options."""


def measure(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """On the stored codes of the tokens that count (`Evaluation.counted`); per layer (mean over sites), and
    strength_l0_total summed over all replaced layers.

    - l0: non-zero entries per token; l0_p10, l0_p90: its quantiles over the tokens of all sites;
    - strength_l0: fewest entries whose strengths sum to at least 95% of the token's Σ strength;
    - rest_neurons: hidden neurons that belong to no unit (a side MLP's). They are in every L0: who reads the layer has
      to read them too [U];
    - gini, hoyer: inequality of the strengths of one token over all units, silent ones included, mean over tokens.
      Gini is 0 for equal strengths and (n−1)/n for a single firing unit; Hoyer (√n − l1/l2)/(√n − 1) is 0 and 1
      (Hoyer 2004; Hurley & Rickard 2009). Tokens on which nothing fires count 1 in both.
    """
    documents = evaluation.document_of_codes()
    names = ("l0", "strength_l0", "gini", "hoyer")
    sums = {name: evaluation.document_sums() for name in names}
    tokens = evaluation.document_sums()
    counted = evaluation.counted_of_codes()
    documents = documents[counted]
    evaluation.by_document(documents, torch.ones(len(documents)), tokens)
    lengths = []
    n_sites = len(evaluation.system.sites)
    rest = [evaluation.system.rest_neurons(site) for site in evaluation.system.sites]
    for site in evaluation.system.sites:
        encoded = evaluation.load_codes(site)
        per_token = token_sparsity(encoded)
        more = evaluation.system.rest_neurons(site)
        for name in ("l0", "strength_l0"):
            per_token[name] += more
        lengths.append(encoded.codes.row_lengths()[counted] + more)
        for name in names:
            evaluation.by_document(documents, per_token[name][counted] / n_sites, sums[name])

    def row(name: str, numerator: Tensor, unit: str, direction: Direction) -> Measurement:
        replicates = document_bootstrap(numerator.numpy(), tokens.numpy(), evaluation.resamples)
        value = float(numerator.sum() / tokens.sum())
        return Measurement(f"sparsity/{name}", value, unit, direction, VERSION, replicates, "documents")

    low, high = np.quantile(torch.cat(lengths).numpy(), [0.1, 0.9])
    found = [
        row("l0", sums["l0"], "units/token/layer", "lower"),
        Measurement("sparsity/l0_p10", float(low), "units/token/layer", "none", VERSION),
        Measurement("sparsity/l0_p90", float(high), "units/token/layer", "none", VERSION),
        row("strength_l0", sums["strength_l0"], "units/token/layer", "lower"),
        row("strength_l0_total", sums["strength_l0"] * n_sites, "units/token", "lower"),
        row("gini", sums["gini"], "", "higher"),
        row("hoyer", sums["hoyer"], "", "higher"),
        Measurement("sparsity/rest_neurons", sum(rest) / n_sites, "neurons/layer", "lower", VERSION),
        Measurement("sparsity/tokens", float(len(documents)), "tokens", "none", VERSION),
    ]
    return [replace(measured, saw=f"{len(documents):,} tokens of text") for measured in found]


def token_sparsity(encoded: Encoded) -> dict[str, Tensor]:
    """l0, strength_l0, gini and hoyer of every token `[tokens]` float64, from the strengths of its entries."""
    codes, n = encoded.codes, encoded.codes.n_units
    l0 = codes.row_lengths()
    token = codes.token_of_entry()
    # One row a token, from the strongest to the weakest: `[tokens, largest L0]`, zeros behind.
    width = max(1, int(l0.max()) if codes.n_tokens else 1)
    ordered = torch.zeros(codes.n_tokens, width, dtype=torch.float64)
    ordered[token, torch.arange(codes.nnz) - codes.indptr[:-1][token]] = encoded.strengths.double()
    ordered = ordered.sort(dim=1, descending=True).values
    running = ordered.cumsum(1)
    total, square = running[:, -1], ordered.square().sum(1)
    # An entry is needed while the stronger ones carry less than the share, to the precision of float32 strengths.
    needed = (running - ordered < SHARE * total[:, None] * (1 - 1e-6)) & (ordered > 0)
    strength_l0 = needed.sum(1).double()
    # Σ over units ascending of (place · strength); silent units take the lowest places and add nothing.
    weighted = (ordered * (n - torch.arange(width))).sum(1)
    silent = total == 0
    gini = torch.where(silent, 1.0, 2 * weighted / (n * total.clamp_min(1e-300)) - (n + 1) / n)
    root = n**0.5
    concentration = (root - total / square.sqrt().clamp_min(1e-300)) / (root - 1) if n > 1 else torch.ones_like(total)
    return {
        "l0": l0.double(),
        "strength_l0": strength_l0,
        "gini": gini,
        "hoyer": torch.where(silent, 1.0, concentration),
    }


register("sparsity", measure, Options, VERSION)
