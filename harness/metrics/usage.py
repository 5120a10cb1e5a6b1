"""How the units share the work: dead, rare and always-on ones, unevenness, and the fit of a Zipf line.

Counted the same way for latents, experts and neurons: in inference mode, on held-out text, over a stated number of
tokens of text (`usage/tokens`, see `Evaluation.counted`; a unit that is merely rare looks dead on too few).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from pydantic import Field
from scipy.special import gammaln

from harness.base.settings import Strict
from harness.metrics.metric import register
from harness.systems.evaluation import Evaluation
from harness.tables.measurement import Direction, Measurement
from harness.tables.statistics import proportion_bootstrap

VERSION = 2


class Options(Strict):
    """Densities are shares of tokens. rare: fires, but on fewer than this. always_on: fires on more than this.

    slots: firings of each unit, on average, at which systems are compared.
    """

    rare: float = 1e-3
    always_on: float = 0.5
    slots: int = Field(default=8, ge=1)


def measure(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """Shares of units, over all sites together; intervals resample units, since a resample of documents that has fewer
    distinct ones would make more units look dead.

    - dead, rare, always_on: shares of all units;
    - dead_at_slots: the share that would be silent had each site's units fired `slots` times each on average, and no
      more (rarefaction, Hurlbert 1971): a wide pool has fewer firings a unit than a narrow dictionary on the same text,
      and looks more dead for that alone. n/a where they fired less often;
    - dead_chao1: the share that no amount of such text would wake, from how many fired once and how many twice (Chao
      1984, bias-corrected; it finds a lower bound of those that fire, so this is an upper one);
    - unevenness = log N + Σ zᵢ log zᵢ, z the units' shares of the summed strength, mean over sites (0: all units carry
      the same; PEER, arXiv 2407.04153, has gates in place of strengths);
    - zipf_exponent: s of density ∝ rank^(−s), least squares in logarithms over the units that fire, mean over sites;
      zipf_r2: how well that line fits.
    """
    counted = int(evaluation.counted_of_codes().sum())
    densities: dict[str, np.ndarray] = {}
    fired: list[np.ndarray] = []
    masses: list[np.ndarray] = []
    for site in evaluation.system.sites:
        encoded = evaluation.load_codes(site)
        codes = encoded.codes
        counts = torch.bincount(codes.units, minlength=codes.n_units).double()
        densities[str(site)] = (counts / counted).numpy()
        fired.append(counts.numpy())
        mass = torch.zeros(codes.n_units, dtype=torch.float64)
        masses.append(mass.index_add_(0, codes.units, encoded.strengths.double()).numpy())
    np.savez(evaluation.artifacts / "densities.npz", **densities)  # pyright: ignore[reportArgumentType]

    every = np.concatenate(list(densities.values()))
    exponents, fits = zip(*(zipf_fit(density) for density in densities.values()), strict=True)
    share: Callable[[str, np.ndarray, Direction], Measurement] = lambda name, units, direction: Measurement(  # noqa: E731
        f"usage/{name}",
        float(units.mean()),
        "share of units",
        direction,
        VERSION,
        proportion_bootstrap(units, evaluation.resamples),
        "units",
    )
    plain: Callable[[str, float, str], Measurement] = lambda name, value, unit: Measurement(  # noqa: E731
        f"usage/{name}", float(value), unit, "none", VERSION
    )
    found = [
        share("dead", every == 0, "lower"),
        _at_slots(fired, options.slots),
        plain("dead_chao1", 1 - sum(alive(counts) for counts in fired) / len(every), "share of units"),
        share("rare", (every > 0) & (every < options.rare), "none"),
        share("always_on", every > options.always_on, "lower"),
        plain("unevenness", float(np.mean([unevenness(mass) for mass in masses])), "nat"),
        plain("zipf_exponent", float(np.mean(exponents)), ""),
        plain("zipf_r2", float(np.mean(fits)), ""),
        plain("units", len(every), "units"),
        plain("tokens", counted, "tokens"),
    ]
    return [replace(measured, saw=f"{counted:,} tokens of text") for measured in found]


def silent_share(counts: np.ndarray, slots: int) -> float:
    """Expected share of units that stay silent when `slots` firings are drawn, without putting back, out of `counts`
    `[units]`: mean over units of C(T − c, slots) / C(T, slots), T = Σ c. nan where there are fewer."""
    total = counts.sum()
    if total < slots:
        return float("nan")

    def log_choose(n: np.ndarray) -> np.ndarray:
        return gammaln(n + 1) - gammaln(slots + 1) - gammaln(n - slots + 1)

    left = total - counts
    possible = left >= slots
    missed = np.zeros(len(counts))
    missed[possible] = np.exp(log_choose(left[possible]) - log_choose(np.array(float(total))))
    return float(missed.mean())


def alive(counts: np.ndarray) -> float:
    """Units that fire at all, however rarely, by Chao's estimate: those seen + f₁(f₁ − 1) / (2 (f₂ + 1)), f₁ and f₂ how
    many fired once and twice; at most all of them."""
    once, twice = (counts == 1).sum(), (counts == 2).sum()
    return float(min(len(counts), (counts > 0).sum() + once * (once - 1) / (2 * (twice + 1))))


def _at_slots(fired: list[np.ndarray], slots: int) -> Measurement:
    """Over sites of different width: each unit counts once."""
    shares = [silent_share(counts, slots * len(counts)) for counts in fired]
    value = sum(share * len(counts) for share, counts in zip(shares, fired, strict=True)) / sum(map(len, fired))
    least = min(counts.sum() / len(counts) for counts in fired)
    reason = None if np.isfinite(value) else f"units fired {least:.1f} times each, fewer than {slots}: more text"
    return Measurement("usage/dead_at_slots", value, "share of units", "lower", VERSION, reason=reason)


def unevenness(mass: np.ndarray) -> float:
    """log N + Σ z log z of non-negative `mass` `[units]`, z = mass / Σ mass. 0: all equal; log N: one alone."""
    total = mass.sum()
    if total == 0:
        return 0.0
    z = mass[mass > 0] / total
    return float(np.log(len(mass)) + (z * np.log(z)).sum())


def zipf_fit(density: np.ndarray) -> tuple[float, float]:
    """Exponent s and R² of log density = c − s log rank over the units that fire; nan where fewer than three do."""
    alive = np.sort(density[density > 0])[::-1]
    if len(alive) < 3:
        return float("nan"), float("nan")
    x, y = np.log(np.arange(1, len(alive) + 1)), np.log(alive)
    slope, offset = np.polyfit(x, y, 1)
    spread = ((y - y.mean()) ** 2).sum()
    residual = ((y - slope * x - offset) ** 2).sum()
    return float(-slope), float(1 - residual / spread) if spread > 0 else 1.0


register("usage", measure, Options, VERSION)
