"""How well a grafted dictionary reproduces what it should write, at each site alone, the rest of the model untouched.

A native system has nothing to reconstruct: its units are the layer. Its row says n/a instead of a flattering 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from harness.base.settings import Strict
from harness.metrics.metric import register
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site
from harness.tables.measurement import BY_CONSTRUCTION, Direction, Measurement, not_applicable
from harness.tables.statistics import resampled_sums
from kernels.codes import token_rows

VERSION = 2


class Options(Strict):
    """No options."""


def measure(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """Figures of x̂ (what the dictionary writes) against x (what it should write), means over the system's sites, on the
    tokens that count (`Evaluation.counted`).

    - explained_variance = 1 − Σ‖x−x̂‖² / Σ‖x−x̄‖², sums over tokens, x̄ the mean over the same tokens; unmoved by scaling
      or shifting the activations together with their reconstruction;
    - normalised_mse = Σ‖x−x̂‖² / Σ‖x‖² (ours: relative to zero, where papers divide by one or the other);
    - cosine: mean over tokens of x·x̂ / ‖x‖‖x̂‖; norm_ratio: mean over tokens of ‖x̂‖/‖x‖.
    """
    system = evaluation.system
    if system.native:
        return not_applicable([f"reconstruction/{name}" for name in FIGURES], VERSION, BY_CONSTRUCTION)
    width = system.model.config.hidden_size
    columns = {site: evaluation.document_sums(width + 5) for site in system.sites}
    document, counted = torch.empty(0), torch.empty(0)

    def add(site: Site, x: Tensor, y: Tensor) -> None:
        positions = torch.arange(y.shape[1], device=y.device)[None]
        rows = token_rows(y.shape[0], positions)
        x, y = x.flatten(0, 1), y.flatten(0, 1)
        dictionary = system.decomposition[site]
        hat = (dictionary.write(dictionary.read(x, rows), x) + dictionary.rest(x)).double()
        evaluation.by_document(document[counted], token_columns(y.double(), hat)[counted], columns[site])

    with torch.no_grad(), system.watching(add):
        for batch in evaluation.batches():
            document, counted = batch.document.reshape(-1), evaluation.counted(batch.input_ids).reshape(-1)
            system.model(batch.input_ids, use_cache=False, logits_to_keep=1)

    tokens = int(next(iter(columns.values()))[:, 2].sum())
    saw = f"{tokens:,} tokens of text in {evaluation.sequences_read():,} sequences"
    found: list[Measurement] = []
    for name, (formula, direction) in FIGURES.items():
        # Site by site, then the mean over sites: a resample draws the same documents at all of them.
        values = [formula(sums.sum(0, keepdim=True).numpy())[0] for sums in columns.values()]
        replicates = [formula(resampled_sums(sums.numpy(), evaluation.resamples)) for sums in columns.values()]
        found.append(
            Measurement(
                f"reconstruction/{name}",
                float(np.mean(values)),
                "",
                direction,
                VERSION,
                np.mean(replicates, axis=0),
                "documents",
                saw=saw,
            )
        )
    return found


def token_columns(x: Tensor, hat: Tensor) -> Tensor:
    """Per token, what the figures sum: ‖x−x̂‖², ‖x‖², 1, cosine, ‖x̂‖/‖x‖, then x itself. `[tokens, 5 + d]`"""
    norm, hat_norm = x.norm(dim=1), hat.norm(dim=1)
    cosine = (x * hat).sum(1) / (norm * hat_norm).clamp_min(1e-30)
    ratio = hat_norm / norm.clamp_min(1e-30)
    columns = [(x - hat).square().sum(1), x.square().sum(1), torch.ones_like(norm), cosine, ratio]
    return torch.cat([torch.stack(columns, 1), x], dim=1)


def _explained_variance(sums: np.ndarray) -> np.ndarray:
    error, square, tokens, total = sums[:, 0], sums[:, 1], sums[:, 2], sums[:, 5:]
    return 1 - error / (square - (total**2).sum(1) / tokens)


FIGURES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Direction]] = {
    "explained_variance": (_explained_variance, "higher"),
    "normalised_mse": (lambda sums: sums[:, 0] / sums[:, 1], "lower"),
    "cosine": (lambda sums: sums[:, 3] / sums[:, 2], "higher"),
    "norm_ratio": (lambda sums: sums[:, 4] / sums[:, 2], "none"),
}


register("reconstruction", measure, Options, VERSION)
